import Files
import Tensors

/// What HQQ has beside a weight's codes: its shape and settings, a small tensor each.
///
/// Source: hqq 0.2.8, `core/quantize.py` (`HQQLinear.state_dict`) and `core/utils.py`
/// (`encode_safetensor_type`): a truth value is a byte, an integer an I32, text its characters.
package struct HQQSettings: Sendable {
  let outputs: Int
  let inputs: Int
  let groupSize: Int
  /// The names of the tensors that are there.
  let names: [String]

  /// A tensor of them.
  package struct Setting: Sendable {
    /// Its name, type and shape.
    package let part: Int4Layout.Part
    /// What it holds.
    package let bytes: [UInt8]
  }

  /// The most characters of a text, and numbers of a shape.
  private static let maximumByteCount = 64

  /// The tensors of a weight (outputs, inputs) whose scales are in f32.
  package static func all(_ outputs: Int, _ inputs: Int, groupSize: Int) -> [Setting] {
    func number(_ ending: String, _ value: Int) -> Setting {
      Setting(
        part: .init(ending: ending, dtype: .i32, shape: []), bytes: Int32(value).littleEndianBytes)
    }
    func flag(_ ending: String, _ value: Bool) -> Setting {
      Setting(part: .init(ending: ending, dtype: .u8, shape: []), bytes: [value ? 1 : 0])
    }
    func text(_ ending: String, _ value: String) -> Setting {
      Setting(
        part: .init(ending: ending, dtype: .u8, shape: [value.utf8.count]), bytes: Array(value.utf8)
      )
    }
    return [
      number(".axis", 1), flag(".channel_wise", true), text(".compute_dtype", "torch.float32"),
      flag(".encoded_state_dict", true), number(".group_size", groupSize), number(bitsEnding, 4),
      flag(".offload_meta", false), flag(".optimize", false), text(".packing", packing),
      flag(".quant_scale", false), flag(".quant_zero", false), flag(".round_zero", false),
      Setting(
        part: .init(ending: ".shape", dtype: .i64, shape: [2]),
        bytes: Int64(outputs).littleEndianBytes + Int64(inputs).littleEndianBytes),
      flag(".stores_quant_config", true), text(".unpack_view_dtype", "torch.uint8"),
      flag(".view_as_float", false),
    ]
  }

  /// The names that they end in.
  static let endings = all(1, 1, groupSize: 1).map(\.part.ending)

  /// The ending of the number of bits.
  static let bitsEnding = ".nbits"

  /// Two codes a byte.
  private static let packing = "4bit_u8"

  /// Reads those of a module.
  ///
  /// - Throws: `damaged` where one is missing or none of HQQ's; `unsupported` for other numbers of
  ///   bits, another axis and scales that are quantized themselves; `io`.
  init(of module: String, in checkpoint: Checkpoint) throws(PeftoolError) {
    func bytes(
      _ ending: String, _ dtype: DType, isOptional: Bool = false
    ) throws(PeftoolError) -> [UInt8]? {
      guard let tensor = checkpoint[module + ending] else {
        if isOptional { return nil }
        throw PeftoolError(.damaged, "has no tensor '\((module + ending).printable)' beside it")
      }
      guard tensor.dtype == dtype, tensor.byteCount <= Self.maximumByteCount else {
        throw PeftoolError(
          .damaged,
          "is \(tensor.dtype.rawValue) of shape \(tensor.shape.shapeText), expected a setting of HQQ "
            + "in \(dtype.rawValue)", tensor: tensor.name)
      }
      return try checkpoint.source.bytes(of: tensor)
    }
    func numbers(
      _ ending: String, _ dtype: DType, count: Int
    ) throws(PeftoolError) -> [Int] {
      let width = dtype.bitCount / 8
      let found = try bytes(ending, dtype) ?? []
      guard found.count == count * width else {
        throw PeftoolError(
          .damaged, "has \(found.count / width) numbers, expected \(count)", tensor: module + ending
        )
      }
      return (0..<count).map { place in
        let bits = found[place * width..<(place + 1) * width].reversed()
          .reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        return width == 4 ? Int(Int32(truncatingIfNeeded: bits)) : Int(Int64(bitPattern: bits))
      }
    }
    for (ending, expected) in [(Self.bitsEnding, 4), (".axis", 1)] {
      let value = try numbers(ending, .i32, count: 1)[0]
      guard value == expected else {
        throw PeftoolError(
          .unsupported, "is \(value), expected \(expected)", tensor: module + ending)
      }
    }
    let packing = String(decoding: try bytes(".packing", .u8) ?? [], as: UTF8.self)
    guard packing == Self.packing else {
      throw PeftoolError(
        .unsupported, "is '\(packing.printable)', expected '\(Self.packing)'",
        tensor: module + ".packing")
    }
    for ending in [".view_as_float", ".quant_scale", ".quant_zero"] {
      let value = try bytes(ending, .u8, isOptional: true) ?? [0]
      guard value == [0] else {
        throw PeftoolError(
          value == [1] ? .unsupported : .damaged, "is \(value), expected 0: false",
          tensor: module + ending)
      }
    }
    let shape = try numbers(".shape", .i64, count: 2)
    groupSize = try numbers(".group_size", .i32, count: 1)[0]
    (outputs, inputs) = (shape[0], shape[1])
    let limit = Int(Int32.max)
    guard (1...limit).contains(outputs), (1...limit).contains(inputs), groupSize > 0,
      groupSize % 8 == 0, inputs % groupSize == 0, outputs * (inputs / groupSize) % 2 == 0
    else {
      throw PeftoolError(
        .unsupported,
        "is of shape \(shape.shapeText) in groups of \(groupSize), expected an even number of groups "
          + "of a multiple of 8 inputs, which divide them", tensor: module + ".shape")
    }
    names = Self.endings.map { module + $0 }.filter { checkpoint[$0] != nil }
  }
}

extension FixedWidthInteger {
  fileprivate var littleEndianBytes: [UInt8] {
    (0..<bitWidth / 8).map { UInt8(truncatingIfNeeded: self >> (8 * $0)) }
  }
}
