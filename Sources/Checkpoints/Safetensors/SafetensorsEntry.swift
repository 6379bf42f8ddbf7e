import Files
import JSON
import Tensors

/// One tensor's entry in a safetensors header, not yet checked against the file.
struct SafetensorsEntry {
  let name: String
  let dtype: DType
  let shape: [Int]
  /// `data_offsets`, counted from the end of the header.
  let begin: Int
  let end: Int
  /// Where the name stands in the file.
  let offset: Int

  /// Reads the entry's value: `{"dtype": …, "shape": […], "data_offsets": [begin, end]}`, other
  /// keys passed over, or, as the reference library takes it, an array of the three values.
  init(_ reader: inout JSONReader, name: String, offset: Int) throws(PeftoolError) {
    var dtype: DType?
    var shape: [Int]?
    var ends: [Int]?
    if try reader.nextKind() == .array {
      var count = 0
      let start = reader.offset
      try reader.readArray { (reader) throws(PeftoolError) in
        switch count {
        case 0: dtype = try Self.readDType(&reader)
        case 1: shape = try Self.readIntegers(&reader, "shape")
        case 2: ends = try Self.readOffsets(&reader)
        default: try reader.skip()
        }
        count += 1
      }
      guard count == 3 else {
        throw PeftoolError(
          .damaged, "an array of \(count) values, expected dtype, shape and data_offsets",
          offset: start)
      }
    } else {
      try reader.readObject { (reader, key, offset) throws(PeftoolError) in
        switch key {
        case "dtype":
          try Self.refuseTwice(dtype != nil, key, offset)
          dtype = try Self.readDType(&reader)
        case "shape":
          try Self.refuseTwice(shape != nil, key, offset)
          shape = try Self.readIntegers(&reader, key)
        case "data_offsets":
          try Self.refuseTwice(ends != nil, key, offset)
          ends = try Self.readOffsets(&reader)
        default:
          try reader.skip()
        }
      }
    }
    guard let dtype else { throw PeftoolError(.damaged, "has no dtype", offset: offset) }
    guard let shape else { throw PeftoolError(.damaged, "has no shape", offset: offset) }
    guard let ends else { throw PeftoolError(.damaged, "has no data_offsets", offset: offset) }
    (self.name, self.dtype, self.shape, self.offset) = (name, dtype, shape, offset)
    (begin, end) = (ends[0], ends[1])
  }

  /// Checks that the tensor begins where the one before it ends, that it has the bytes which
  /// dtype and shape need, and that the file has them.
  func check(follows position: Int, dataByteCount: Int) throws(PeftoolError) {
    do throws(PeftoolError) {
      guard begin <= end else {
        throw PeftoolError(.damaged, "data_offsets [\(begin), \(end)] end before they begin")
      }
      guard begin == position else {
        throw PeftoolError(
          .damaged,
          "data_offsets begin at \(begin), expected \(position): "
            + (begin < position ? "two tensors overlap" : "no tensor has the bytes between"))
      }
      let needed = try TensorInfo.byteCount(dtype: dtype, shape: shape)
      guard end - begin == needed else {
        throw PeftoolError(
          .damaged,
          "\(dtype.rawValue) of shape \(shape.shapeText) needs \(needed) bytes, "
            + "data_offsets give \(end - begin)")
      }
      guard end <= dataByteCount else {
        throw PeftoolError(
          .damaged,
          "data_offsets end at \(end), the file has \(dataByteCount) bytes after its header")
      }
    } catch {
      throw PeftoolError(error.kind, error.reason, offset: offset, tensor: name)
    }
  }

  private static func refuseTwice(
    _ isKnown: Bool, _ key: String, _ offset: Int
  ) throws(PeftoolError) {
    guard !isKnown else {
      throw PeftoolError(.damaged, "\(key) stands twice", offset: offset)
    }
  }

  /// A dtype's name; the reference library also takes `{"F32": null}`.
  private static func readDType(_ reader: inout JSONReader) throws(PeftoolError) -> DType {
    let offset = reader.offset
    var names: [String] = []
    if try reader.nextKind() == .object {
      try reader.readObject { (reader, key, _) throws(PeftoolError) in
        names.append(key)
        try reader.readNull()
      }
    } else {
      names.append(try reader.readString())
    }
    guard names.count == 1 else {
      throw PeftoolError(
        .damaged, "dtype is an object of \(names.count), expected a name", offset: offset)
    }
    guard let dtype = DType(rawValue: names[0]), !dtype.isBlock else {
      throw PeftoolError(
        .unsupported, "dtype \"\(names[0].printable)\" is none of safetensors 0.8", offset: offset)
    }
    return dtype
  }

  private static func readOffsets(_ reader: inout JSONReader) throws(PeftoolError) -> [Int] {
    let offset = reader.offset
    let offsets = try readIntegers(&reader, "data_offsets")
    guard offsets.count == 2 else {
      throw PeftoolError(
        .damaged, "data_offsets has \(offsets.count) numbers, expected 2", offset: offset)
    }
    return offsets
  }

  /// The most dimensions, so that a list of sizes takes no more memory than the header's text.
  private static let maximumIntegerCount = 100_000

  private static func readIntegers(
    _ reader: inout JSONReader, _ key: String
  ) throws(PeftoolError) -> [Int] {
    var integers: [Int] = []
    try reader.readArray { (reader) throws(PeftoolError) in
      let offset = reader.offset
      guard integers.count < maximumIntegerCount else {
        throw PeftoolError(
          .unsupported, "\(key) has more than \(maximumIntegerCount) numbers", offset: offset)
      }
      let text = try reader.readNumber()
      // A sign is refused even before zero, as the reference library does.
      guard let value = Int(text), !text.hasPrefix("-") else {
        throw PeftoolError(
          .damaged, "\(key) has \(text.printable), expected an integer from 0 to 2^63 - 1",
          offset: offset)
      }
      integers.append(value)
    }
    return integers
  }
}
