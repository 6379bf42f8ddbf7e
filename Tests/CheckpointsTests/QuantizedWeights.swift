import Checkpoints
import Fixtures
import Tensors

/// A checkpoint with one weight as bitsandbytes saves it, whose tensors a test may change.
struct QuantizedFile {
  /// A tensor with its bytes.
  struct Part {
    var dtype: DType
    var shape: [Int]
    var bytes: [UInt8]

    init(_ dtype: DType, _ shape: [Int], _ bytes: [UInt8]) {
      self.dtype = dtype
      self.shape = shape
      self.bytes = bytes
    }

    init(_ numbers: [Float]) {
      self.init(.f32, [numbers.count], numbers.flatMap { littleEndian(UInt64($0.bitPattern), 4) })
    }
  }

  /// By name.
  var parts: [String: Part]

  /// The text of the 4-bit state.
  var state: String {
    get { String(decoding: parts[Self.stateName]?.bytes ?? [], as: UTF8.self) }
    set { parts[Self.stateName] = .text(newValue) }
  }

  static let stateName = "m.weight.quant_state.bitsandbytes__nf4"

  /// The values of NF4's codes.
  static let levels: [Float] = [
    0xbf80_0000, 0xbf32_39b1, 0xbf06_6b30, 0xbeca_32a0, 0xbe91_a24d, 0xbe3d_353f, 0xbdba_7871, 0,
    0x3da2_faff, 0x3e24_cae3, 0x3e7c_04dd, 0x3ead_033a, 0x3ee1_a4b8, 0x3f10_07ab, 0x3f39_13b3,
    0x3f80_0000,
  ].map(Float.init(bitPattern:))

  /// Codes that count up, over scales 1, 2 and 3: bf16 of shape [3, 64].
  static let plain = QuantizedFile(parts: [
    "m.weight": Part(.u8, [96, 1], (0..<96).map { UInt8($0) }),
    "m.weight.absmax": Part([1, 2, 3]),
    "m.weight.quant_map": Part(levels),
    stateName: .text(
      #"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [3, 64]}"#),
  ])

  /// The same with scales in 8 bits, of which each has its number in the map.
  static let nested = {
    var file = plain
    file.parts["m.weight.absmax"] = Part(.u8, [3], [3, 2, 1])
    file.parts["m.weight.nested_absmax"] = Part([2])
    file.parts["m.weight.nested_quant_map"] = Part((0..<256).map { Float($0) / 256 })
    file.state =
      #"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [3, 64], "#
      + #""nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5}"#
    return file
  }()

  /// Two rows of LLM.int8.
  static let rows = QuantizedFile(parts: [
    "m.weight": Part(.i8, [2, 3], [0, 1, 127, 0, 0x81, 2]),
    "m.SCB": Part([127, 254]),
    "m.weight_format": Part(.u8, [], [0]),
  ])

  /// Writes it, and opens what was written.
  func checkpoint(in scratch: Scratch) throws -> Checkpoint {
    try Checkpoint(opening: write("w.safetensors", in: scratch))
  }

  /// Writes it, and gives its path.
  @discardableResult
  func write(_ name: String, in scratch: Scratch) throws -> String {
    let sorted = parts.sorted { $0.key < $1.key }
    let encoded = try SafetensorsHeader.encode(
      sorted.map { .init(name: $0.key, dtype: $0.value.dtype, shape: $0.value.shape) },
      metadata: nil, order: .given)
    return try scratch.write(name, encoded.bytes + sorted.flatMap(\.value.bytes))
  }
}

extension QuantizedFile.Part {
  static func text(_ text: String) -> Self { .init(.u8, [text.utf8.count], Array(text.utf8)) }
}

extension [UInt8] {
  func chunks(of count: Int) -> [[UInt8]] {
    stride(from: 0, to: self.count, by: count).map { Array(self[$0..<$0 + count]) }
  }
}
