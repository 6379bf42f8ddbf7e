import Checkpoints
import Fixtures
import Foundation
import Tensors
import Testing

/// The weight of the example in `Formats/int4.md`, in each layout, whose tensors a test may change.
struct Int4File {
  var parts: [String: QuantizedFile.Part] = [:]
  var config: String

  /// What the weight is.
  static let values: [Float] = (0..<8).flatMap { output in
    let zero = [0, 1, 2, 5, 8, 12, 14, 15][output]
    return (0..<16).map { Float((3 * output + $0) % 16 - zero) * 0.5 }
  }

  /// The text of the page.
  static let page: String = {
    let root = URL(fileURLWithPath: #filePath)
      .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let bytes = FileManager.default.contents(
      atPath: root.appendingPathComponent("Formats/int4.md").path)
    return String(decoding: bytes ?? Data(), as: UTF8.self)
  }()

  /// The bytes of the example by their names.
  private static func example() throws -> [String: [UInt8]] {
    let parts = page.components(separatedBy: "```hex\n")
    let text = try #require(parts.dropFirst().first?.components(separatedBy: "\n```").first)
    var bytes: [String: [UInt8]] = [:]
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ").map(String.init)
      bytes[words[0], default: []] += try words.dropFirst().map {
        try #require(UInt8($0, radix: 16))
      }
    }
    return bytes
  }

  init(_ layout: Int4Layout) throws {
    let bytes = try Self.example()
    func part(_ name: String) throws -> [UInt8] { try #require(bytes[name]) }
    let scales = [[UInt8]](repeating: [0x00, 0x38], count: 8).flatMap(\.self)
    switch layout {
    case .mlx:
      config = #"{"quantization": {"group_size": 16, "bits": 4}}"#
      parts["m.weight"] = .init(.u32, [8, 2], try part("mlx.weight"))
      parts["m.scales"] = .init(.f16, [8, 1], scales)
      parts["m.biases"] = .init(.f16, [8, 1], try part("mlx.biases"))
      return
    case .hqq:
      config = #"{"quantization_config": {"quant_method": "hqq"}}"#
      parts["m.W_q"] = .init(.u8, [4, 16], try part("hqq.W_q"))
      parts["m.scale"] = .init(.f16, [8, 1], scales)
      parts["m.zero"] = .init(.f16, [8, 1], try part("hqq.zero"))
      for setting in HQQSettings.all(8, 16, groupSize: 16) {
        let (part, bytes) = (setting.part, setting.bytes)
        parts["m" + part.ending] = .init(part.dtype, part.shape, bytes)
      }
      return
    case .gptq, .gptqV2:
      config =
        #"{"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 16, "#
        + #""checkpoint_format": "\#(layout.rawValue)"}}"#
      parts["m.qweight"] = .init(.i32, [2, 8], try part("gptq.qweight"))
      parts["m.g_idx"] = .init(.i32, [16], [UInt8](repeating: 0, count: 64))
    case .awq:
      config = #"{"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 16}}"#
      parts["m.qweight"] = .init(.i32, [16, 1], try part("awq.qweight"))
    }
    parts["m.qzeros"] = .init(.i32, [1, 1], try part("\(layout.rawValue).qzeros"))
    parts["m.scales"] = .init(.f16, [1, 8], scales)
  }

  /// Writes it with its configuration, and opens the folder.
  func checkpoint(in scratch: Scratch) throws -> Checkpoint {
    var file = QuantizedFile.plain
    file.parts = parts
    try scratch.write("config.json", config)
    try file.write("model.safetensors", in: scratch)
    return try Checkpoint(opening: scratch.path)
  }

  /// What it stands for.
  func values(in scratch: Scratch, as dtype: DType = .f32) throws -> [Float] {
    let checkpoint = try checkpoint(in: scratch)
    let weights = try QuantizedWeight.all(in: checkpoint)
    let source = DequantizedSource(
      checkpoint.source, weights: weights.map { .init($0, dtype: dtype, isTransposed: false) })
    #expect(source.tensors.map(\.name) == ["m.weight"])
    let bytes = try source.bytes(of: source.tensors[0])
    guard dtype == .f32 else { return [] }
    return bytes.chunks(of: 4).map {
      Float(bitPattern: $0.reversed().reduce(0) { $0 << 8 | UInt32($1) })
    }
  }
}
