import Checkpoints
import Files
import Fixtures
import Tensors
import Testing

/// Weights in one layout of group-wise INT4 seen in another; `Formats/int4.md` has the formulas.
@Suite struct RelaidSourceTests {
  private let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// The weight that lies in `[8, 64]` in groups of 32 in MLX's files.
  private func file(scale: [UInt8] = [0, 0x38], offset: [UInt8] = [0, 0xC0]) throws -> Int4File {
    var file = try Int4File(.mlx)
    file.config = #"{"quantization": {"group_size": 32, "bits": 4}}"#
    let codes = (0..<8 * 32).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 5) }
    file.parts["m.weight"] = .init(.u32, [8, 8], codes)
    file.parts["m.scales"] = .init(
      .f16, [8, 2], Array(repeating: scale, count: 16).flatMap(\.self))
    file.parts["m.biases"] = .init(
      .f16, [8, 2], Array(repeating: offset, count: 16).flatMap(\.self))
    return file
  }

  private func relaid(_ checkpoint: Checkpoint, as layout: Int4Layout) throws -> RelaidSource {
    try RelaidSource(
      checkpoint.source, weights: QuantizedWeight.all(in: checkpoint).compactMap(\.groups),
      as: layout)
  }

  /// Every tensor as one, and in parts that begin and end anywhere.
  @Test func partsAreThoseOfTheWhole() throws {
    let checkpoint = try file().checkpoint(in: scratch)
    for layout in RelaidSource.layouts {
      let source = try relaid(checkpoint, as: layout)
      #expect(source.tensors.count == (layout == .mlx ? 3 : 19))
      for tensor in source.tensors {
        let whole = try source.bytes(of: tensor)
        #expect(whole.count == tensor.byteCount)
        for cut in [0, 1, whole.count / 3, whole.count - 1] where cut < whole.count {
          var part = [UInt8](repeating: 0, count: whole.count - cut)
          var span = part.mutableSpan
          var raw = span.mutableBytes
          try source.read(tensor, bytes: cut..<whole.count, into: &raw)
          #expect(part == Array(whole[cut...]), "\(tensor.name)")
        }
      }
    }
  }

  /// HQQ's halves are those of the codes, and an offset of -2 beside a scale of 0.5 is a zero of 4.
  @Test func codesLieByHalves() throws {
    let checkpoint = try file().checkpoint(in: scratch)
    let codes = try #require(checkpoint["m.weight"])
    let packed = try checkpoint.source.bytes(of: codes)
    let source = try relaid(checkpoint, as: .hqq)
    func bytes(_ name: String) throws -> [UInt8] {
      try source.bytes(of: #require(source.tensors.first { $0.name == name }))
    }
    func code(_ place: Int) -> UInt8 { packed[place / 2] >> (4 * UInt8(place % 2)) & 15 }
    #expect(try bytes("m.W_q") == (0..<256).map { code($0) << 4 | code(256 + $0) })
    #expect(try bytes("m.zero") == (0..<16).flatMap { _ in [0, 0, 0x80, 0x40] as [UInt8] })
    #expect(try bytes("m.scale") == (0..<16).flatMap { _ in [0, 0, 0, 0x3F] as [UInt8] })
  }

  @Test func whatALayoutHasNoNumberForIsRefused() throws {
    let source = try relaid(file(scale: [0, 0]).checkpoint(in: scratch), as: .hqq)
    let zero = try #require(source.tensors.first { $0.name == "m.zero" })
    #expect(
      throws: PeftoolError(
        .different, "has a scale of 0.0 beside -2.0, for which hqq has no number",
        tensor: "m.scales", path: scratch.path("model.safetensors"))
    ) { try source.bytes(of: zero) }
  }

  @Test(arguments: RelaidSource.layouts) func groupsThatALayoutHasNotAreRefused(
    layout: Int4Layout
  ) throws {
    var file = try Int4File(.gptq)
    #expect(
      throws: PeftoolError(
        .unsupported,
        "is in groups of 16 of 16 inputs, and \(layout.rawValue) is written in groups of 32, 64 or 128 "
          + "that divide them", tensor: "m.qweight", path: scratch.path("model.safetensors"))
    ) { try relaid(file.checkpoint(in: scratch), as: layout) }
    file.config = file.config.replacing(#""group_size": 16"#, with: #""group_size": 8"#)
    file.parts["m.qzeros"] = .init(.i32, [2, 1], [UInt8](repeating: 0x77, count: 8))
    file.parts["m.scales"] = .init(.f16, [2, 8], [UInt8](repeating: 0x38, count: 32))
    file.parts["m.g_idx"]?.bytes[0] = 1
    #expect(
      throws: PeftoolError(
        .unsupported,
        "has its inputs in groups of another order (desc_act), and \(layout.rawValue) has them in "
          + "theirs", tensor: "m.qweight", path: scratch.path("model.safetensors"))
    ) { try relaid(file.checkpoint(in: scratch), as: layout) }
  }
}
