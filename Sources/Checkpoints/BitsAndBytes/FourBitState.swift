package import Files
import JSON
package import Quantization
package import Tensors

/// What bitsandbytes keeps beside a 4-bit weight as JSON (`QuantState.as_dict`).
package struct FourBitState: Equatable, Sendable {
  /// The code.
  package let code: FourBitCode
  /// The elements that share a scale.
  package let blockSize: Int
  /// The type of the weight before: F32, F16 or BF16.
  package let dtype: DType
  /// The shape of the weight before.
  package let shape: [Int]
  /// The mean of the scales; nil without double quantization.
  package let nestedOffset: Float?

  package init(
    code: FourBitCode, blockSize: Int, dtype: DType, shape: [Int], nestedOffset: Float?
  ) {
    self.code = code
    self.blockSize = blockSize
    self.dtype = dtype
    self.shape = shape
    self.nestedOffset = nestedOffset
  }

  /// The elements of the weight.
  package var elementCount: Int { shape.reduce(1, *) }
  /// Its blocks.
  package var blockCount: Int { FourBitCode.blockCount(of: elementCount, blockSize: blockSize) }
  /// The blocks of its scales in double quantization.
  package var nestedBlockCount: Int {
    FourBitCode.blockCount(of: blockCount, blockSize: NestedScales.blockSize)
  }

  private static let dtypeNames: [(DType, String)] = [
    (.f32, "float32"), (.f16, "float16"), (.bf16, "bfloat16"),
  ]

  /// PyTorch's name of a type that bitsandbytes quantizes; nil for any other.
  package static func name(of dtype: DType) -> String? {
    dtypeNames.first { $0.0 == dtype }?.1
  }

  /// The type of that name in PyTorch, if bitsandbytes quantizes it.
  package static func dtype(named name: String) -> DType? {
    dtypeNames.first { $0.1 == name }?.0
  }

  /// The text, byte for byte that of bitsandbytes: Python's `json.dumps`.
  package var text: String {
    var members = [
      "\"quant_type\": \"\(code.rawValue)\"", "\"blocksize\": \(blockSize)",
      "\"dtype\": \"\(Self.name(of: dtype) ?? dtype.rawValue)\"",
      "\"shape\": [\(shape.map(String.init).joined(separator: ", "))]",
    ]
    if let nestedOffset {
      members += [
        "\"nested_blocksize\": \(NestedScales.blockSize)", "\"nested_dtype\": \"float32\"",
        // The shortest digits that give the double back, as Python's repr.
        "\"nested_offset\": \(Double(nestedOffset))",
      ]
    }
    return "{\(members.joined(separator: ", "))}"
  }

  private static let keys = [
    "quant_type", "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype",
    "nested_offset",
  ]

  /// Reads the text that lies in a file.
  ///
  /// - Throws: `damaged` and `unsupported`.
  package init(parsing bytes: [UInt8]) throws(PeftoolError) {
    let json = try JSON(parsing: bytes)
    // bitsandbytes refuses other keys, too.
    for member in try json.object(named: "the state") where !Self.keys.contains(member.key) {
      throw PeftoolError(.unsupported, "has a key \"\(member.key.printable)\", which is unknown")
    }
    let type = try json.string(at: "quant_type")
    guard let code = FourBitCode(rawValue: type) else {
      throw PeftoolError(
        .unsupported, "quant_type is \"\(type.printable)\", expected \"nf4\" or \"fp4\"")
    }
    let blockSize = try json.int(at: "blocksize")
    guard FourBitCode.blockSizes.contains(blockSize) else {
      throw PeftoolError(
        .unsupported, "blocksize is \(blockSize), expected one of \(FourBitCode.blockSizes)")
    }
    let name = try json.string(at: "dtype")
    guard let dtype = Self.dtype(named: name) else {
      throw PeftoolError(
        .unsupported, "dtype is \"\(name.printable)\", expected float32, float16 or bfloat16")
    }
    var shape: [Int] = []
    for size in try json.array(at: "shape") {
      let size = try size.int(named: "shape")
      guard size > 0 else { throw PeftoolError(.damaged, "shape has \(size)") }
      shape.append(size)
    }
    guard shape.count == 2 else {
      throw PeftoolError(.unsupported, "shape is \(shape.shapeText), expected a matrix")
    }
    // Refuses sizes whose product overflows.
    _ = try TensorInfo.byteCount(dtype: .f64, shape: shape)
    self.init(
      code: code, blockSize: blockSize, dtype: dtype, shape: shape,
      nestedOffset: try Self.nestedOffset(json))
  }

  /// The mean of the scales; nil where no key speaks of double quantization.
  private static func nestedOffset(_ json: JSON) throws(PeftoolError) -> Float? {
    guard keys.contains(where: { $0.hasPrefix("nested_") && json[$0] != nil }) else { return nil }
    let blockSize = try json.int(at: "nested_blocksize")
    guard blockSize == NestedScales.blockSize else {
      throw PeftoolError(
        .unsupported, "nested_blocksize is \(blockSize), expected \(NestedScales.blockSize)")
    }
    let dtype = try json.string(at: "nested_dtype")
    guard dtype == Self.name(of: .f32) else {
      throw PeftoolError(
        .unsupported, "nested_dtype is \"\(dtype.printable)\", expected \"float32\"")
    }
    let offset = try json.double(at: "nested_offset")
    guard Float(offset).isFinite else {
      throw PeftoolError(.damaged, "nested_offset is \(offset), too large for a float")
    }
    return Float(offset)
  }
}
