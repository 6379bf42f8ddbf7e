package import Files
import JSON
package import Tensors

/// The head of a GGUF file: metadata, and where the tensors lie.
///
/// Takes and refuses what llama.cpp's `gguf.cpp` does, and refuses besides: tensors that end past
/// the file, keys and names that are no UTF-8, booleans other than 0 and 1. `Formats/gguf.md` has
/// the rules one by one.
package struct GGUFHeader: Sendable {
  /// The first four bytes.
  package static let magic = Array("GGUF".utf8)
  /// The most bytes before the tensors; the largest vocabularies take half of it.
  package static let maximumByteCount = 50_000_000
  /// Twice the tensors of a model of 60 layers with 512 experts each, one by one.
  package static let maximumTensorCount = 200_000
  /// Models have some fifty pairs.
  package static let maximumPairCount = 50_000
  /// The alignment where `general.alignment` says nothing.
  package static let defaultAlignment = 32
  /// ggml keeps a name in 64 bytes, with a zero after it.
  package static let maximumNameByteCount = 63
  /// The dimensions that a ggml tensor has.
  package static let maximumDimensionCount = 4

  /// 2 or 3; they differ in nothing but that a file of version 3 may be big-endian.
  package let version: Int
  /// The pairs of the metadata in their order.
  package let metadata: [(key: String, value: GGUFValue)]
  /// What every tensor's offset is a multiple of.
  package let alignment: Int
  /// The tensors in the order in which they are listed, which is that of their bytes.
  package let tensors: [TensorInfo]
  /// Where the tensors' bytes begin in the file.
  package let dataStart: Int

  private let places: [ExactName: Int]

  /// The value of a key, byte for byte.
  package subscript(key: String) -> GGUFValue? {
    places[ExactName(key)].map { metadata[$0].value }
  }

  /// Reads an open file's head, and not a byte of its tensors.
  ///
  /// - Throws: `io`, `damaged` and `unsupported` with the offset in the file, and the tensor.
  package init(_ file: InputFile, fileIndex: Int = 0) throws(PeftoolError) {
    var cursor = GGUFCursor(file)
    try self.init(&cursor, fileIndex: fileIndex)
  }

  /// Reads the head of a file of which the first bytes are given.
  ///
  /// - Throws: `damaged` and `unsupported` with the offset in the file, and the tensor.
  package init(parsing bytes: [UInt8], fileByteCount: Int) throws(PeftoolError) {
    var cursor = GGUFCursor(bytes, fileByteCount: fileByteCount)
    try self.init(&cursor, fileIndex: 0)
  }

  private init(_ cursor: inout GGUFCursor, fileIndex: Int) throws(PeftoolError) {
    version = try Self.readVersion(&cursor)
    // A tensor has at least a name's length, the number of dimensions, a type and an offset; a pair
    // a key of one byte with its length, a type and a byte.
    let tensorCount = try cursor.count(
      "tensors", leastByteCount: 24, atMost: Self.maximumTensorCount)
    let pairCount = try cursor.count(
      "pairs of metadata", leastByteCount: 14, atMost: Self.maximumPairCount)
    var metadata: [(key: String, value: GGUFValue)] = []
    var places: [ExactName: Int] = [:]
    for _ in 0..<pairCount {
      let offset = cursor.position
      let bytes = try cursor.string("a key")
      guard !bytes.isEmpty else { throw PeftoolError(.damaged, "an empty key", offset: offset) }
      guard let key = String(validating: bytes, as: UTF8.self) else {
        throw PeftoolError(
          .damaged,
          "key \"\(String(decoding: bytes, as: UTF8.self).printable)\" is no UTF-8", offset: offset)
      }
      guard places.updateValue(metadata.count, forKey: ExactName(key)) == nil else {
        throw PeftoolError(
          .damaged, "key \"\(key.printable)\" stands twice", offset: offset)
      }
      metadata.append((key, try Self.readValue(&cursor, key: key)))
    }
    self.metadata = metadata
    self.places = places
    alignment = try Self.alignment(
      places[ExactName("general.alignment")].map {
        metadata[$0].value
      })

    var entries: [Entry] = []
    var names: Set<ExactName> = []
    for _ in 0..<tensorCount {
      let entry = try Entry(&cursor)
      guard names.insert(ExactName(entry.name)).inserted else {
        throw PeftoolError(
          .damaged, "stands twice in the head", offset: entry.offset, tensor: entry.name)
      }
      entries.append(entry)
    }
    dataStart = try cursor.position.padded(to: alignment)
    tensors = try Self.place(
      entries, dataStart: dataStart, alignment: alignment, fileByteCount: cursor.byteCount,
      fileIndex: fileIndex)
  }

  private static func readVersion(_ cursor: inout GGUFCursor) throws(PeftoolError) -> Int {
    let found = try cursor.bytes(4, "the mark of a GGUF file")
    guard found == magic else {
      throw PeftoolError(.damaged, "does not begin with \"GGUF\"", offset: 0)
    }
    let version = UInt32(try cursor.integer(4, "the version"))
    if version.byteSwapped < 0x100, version > 0xFFFF {
      throw PeftoolError(
        .unsupported, "is for big-endian machines, expected little-endian numbers", offset: 4)
    }
    guard version == 2 || version == 3 else {
      throw PeftoolError(.unsupported, "version \(version) of GGUF, expected 2 or 3", offset: 4)
    }
    return Int(version)
  }

  private static func alignment(_ value: GGUFValue?) throws(PeftoolError) -> Int {
    guard let value else { return defaultAlignment }
    // The type is part of the rule; the parser has noted a U32 as a number without a sign.
    guard case .unsigned(let alignment) = value, alignment.nonzeroBitCount == 1,
      alignment <= UInt32.max
    else {
      throw PeftoolError(
        .damaged, "general.alignment is \(value.summary.printable), expected a power of two")
    }
    return Int(alignment)
  }

  // MARK: Metadata

  private static func readKind(
    _ cursor: inout GGUFCursor, key: String
  ) throws(PeftoolError) -> GGUFValue.Kind {
    let offset = cursor.position
    let number = UInt32(try cursor.integer(4, "a type"))
    guard let kind = GGUFValue.Kind(rawValue: number) else {
      throw PeftoolError(
        .damaged, "\"\(key.printable)\" has a value of type \(number), expected 0 to 12",
        offset: offset)
    }
    if key == "general.alignment", kind != .u32 {
      throw PeftoolError(
        .damaged, "general.alignment is of type \(kind), expected u32", offset: offset)
    }
    return kind
  }

  private static func readValue(
    _ cursor: inout GGUFCursor, key: String
  ) throws(PeftoolError) -> GGUFValue {
    let kind = try readKind(&cursor, key: key)
    switch kind {
    case .string: return .string(try cursor.string("a string"))
    case .array: return .array(try readArray(&cursor, key: key))
    default:
      let offset = cursor.position
      let bits = try cursor.integer(kind.leastByteCount, "a value")
      if kind == .bool { try checkBool(bits, key, offset) }
      return GGUFValue(kind, bits)
    }
  }

  private static func checkBool(
    _ bits: UInt64, _ key: String, _ offset: Int
  ) throws(PeftoolError) {
    guard bits < 2 else {
      throw PeftoolError(
        .damaged, "\"\(key.printable)\" has \(bits) for a boolean, expected 0 or 1", offset: offset)
    }
  }

  private static func readArray(
    _ cursor: inout GGUFCursor, key: String
  ) throws(PeftoolError) -> GGUFArray {
    let offset = cursor.position
    let kind = try readKind(&cursor, key: key)
    guard kind != .array else {
      throw PeftoolError(
        .damaged, "\"\(key.printable)\" has an array of arrays", offset: offset)
    }
    let count = try cursor.count("elements", leastByteCount: kind.leastByteCount)
    guard kind == .string else {
      let start = cursor.position
      let bytes = try cursor.bytes(count * kind.leastByteCount, "an array")
      if kind == .bool, let wrong = bytes.firstIndex(where: { $0 > 1 }) {
        try checkBool(UInt64(bytes[wrong]), key, start + wrong)
      }
      return GGUFArray(kind: kind, count: count, bytes: bytes)
    }
    var bytes: [UInt8] = []
    for _ in 0..<count {
      try cursor.appendString(to: &bytes)
    }
    return GGUFArray(kind: kind, count: count, bytes: bytes)
  }

  // MARK: Tensors

  /// One tensor's entry, not yet compared with the file.
  private struct Entry {
    let name: String
    let dtype: DType
    /// The slowest dimension first, other than in the file.
    let shape: [Int]
    let byteCount: Int
    /// Counted from where the tensors' bytes begin.
    let dataOffset: UInt64
    /// Where the entry begins in the file.
    let offset: Int

    init(_ cursor: inout GGUFCursor) throws(PeftoolError) {
      offset = cursor.position
      let bytes = try cursor.string("a tensor's name")
      guard let name = String(validating: bytes, as: UTF8.self) else {
        throw PeftoolError(
          .damaged, "its name is no UTF-8", offset: offset,
          tensor: String(decoding: bytes, as: UTF8.self))
      }
      self.name = name
      do throws(PeftoolError) {
        guard bytes.count <= GGUFHeader.maximumNameByteCount else {
          throw PeftoolError(
            .damaged,
            "a name of \(bytes.count) bytes, expected at most \(GGUFHeader.maximumNameByteCount)")
        }
        shape = try Self.readShape(&cursor)
        dtype = try Self.readType(&cursor)
        dataOffset = try cursor.integer(8, "an offset")
        byteCount = try TensorInfo.byteCount(dtype: dtype, shape: shape)
      } catch {
        throw PeftoolError(error.kind, error.reason, offset: error.offset ?? offset, tensor: name)
      }
    }

    private static func readShape(_ cursor: inout GGUFCursor) throws(PeftoolError) -> [Int] {
      let count = try cursor.integer(4, "the number of dimensions")
      guard count <= UInt64(GGUFHeader.maximumDimensionCount) else {
        throw PeftoolError(
          .damaged,
          "\(count) dimensions, expected at most \(GGUFHeader.maximumDimensionCount)")
      }
      var shape: [Int] = []
      var product = 1
      for _ in 0..<count {
        let dimension = Int64(bitPattern: try cursor.integer(8, "a dimension"))
        guard dimension >= 0 else {
          throw PeftoolError(.damaged, "a dimension of \(dimension), expected 0 to 2^63 - 1")
        }
        let (next, overflow) = product.multipliedReportingOverflow(by: Int(dimension))
        guard !overflow else {
          throw PeftoolError(.damaged, "has 2^63 elements or more")
        }
        product = next
        shape.append(Int(dimension))
      }
      return shape.reversed()
    }

    private static func readType(_ cursor: inout GGUFCursor) throws(PeftoolError) -> DType {
      let number = UInt32(try cursor.integer(4, "a type"))
      guard let dtype = GGMLType.dtype(number) else {
        throw PeftoolError(
          .unsupported,
          GGMLType.removedName(number).map { "is \($0), which ggml no longer has" }
            ?? "type \(number) is none of ggml's that peftool knows")
      }
      return dtype
    }
  }

  /// Gives each tensor its place, which must be just behind the padded bytes of the one before it.
  private static func place(
    _ entries: [Entry], dataStart: Int, alignment: Int, fileByteCount: Int, fileIndex: Int
  ) throws(PeftoolError) -> [TensorInfo] {
    var tensors: [TensorInfo] = []
    tensors.reserveCapacity(entries.count)
    var position = 0
    for entry in entries {
      do throws(PeftoolError) {
        guard entry.dataOffset == UInt64(position) else {
          throw PeftoolError(
            .damaged,
            "its data is at \(entry.dataOffset), expected \(position): "
              + (entry.dataOffset < UInt64(position)
                ? "two tensors overlap" : "no tensor has the bytes between"))
        }
        // Both are at most 2⁶³ − 1 − dataStart, as the file's size says.
        let room = max(0, fileByteCount - dataStart) - position
        guard entry.byteCount <= max(0, room) else {
          throw PeftoolError(
            .damaged,
            "\(entry.dtype.rawValue) of shape \(entry.shape.shapeText) needs \(entry.byteCount) "
              + "bytes, the file has \(max(0, room)) there")
        }
        // An empty tensor may stand behind the end of the file, where padding is missing.
        let start = min(dataStart + position, fileByteCount)
        tensors.append(
          TensorInfo(
            name: entry.name, dtype: entry.dtype, shape: entry.shape,
            byteRange: start..<start + entry.byteCount, fileIndex: fileIndex))
        position = try (position + entry.byteCount).padded(to: alignment)
      } catch {
        throw PeftoolError(error.kind, error.reason, offset: entry.offset, tensor: entry.name)
      }
    }
    return tensors
  }
}

extension Int {
  /// The next multiple of a power of two.
  func padded(to alignment: Int) throws(PeftoolError) -> Int {
    let (sum, overflow) = addingReportingOverflow(alignment - 1)
    guard !overflow else {
      throw PeftoolError(.damaged, "ends past 2^63 bytes, more than a file can have")
    }
    return sum & ~(alignment - 1)
  }
}
