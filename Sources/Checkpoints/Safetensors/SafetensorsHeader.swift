package import Files
import JSON
package import Tensors

/// The header of a safetensors file: what the tensors are and where they lie.
///
/// Takes and refuses what the reference library 0.8 does, with these differences, all of them
/// stricter: a tensor name may stand once only (the reference keeps the last), a dimension ends at
/// 2⁶³ − 1 instead of 2⁶⁴ − 1, and a header has no more than `maximumValueCount` JSON values.
/// `Formats/safetensors.md` has the rules one by one.
package struct SafetensorsHeader: Sendable {
  /// The bytes before the header: its length, little-endian.
  package static let lengthByteCount = 8
  /// The longest header that the reference library reads.
  package static let maximumByteCount = 100_000_000
  /// Half a million tensors and more; keeps a hostile header from costing many times its size.
  package static let maximumValueCount = 8_000_000
  /// serde_json's limit, which the reference library runs into at 128.
  package static let maximumDepth = 127

  /// The pairs of `__metadata__` in their order; of a key that stands twice, the last.
  package let metadata: [(key: String, value: String)]
  /// Whether there is a `__metadata__` that is not null, empty as it may be.
  package let hasMetadata: Bool
  /// The tensors in the order in which their bytes lie; empty ones at one place as in the header.
  package let tensors: [TensorInfo]
  /// The places in `tensors` in the order in which the header names them.
  package let headerOrder: [Int]

  /// The length of a header, from a file's first eight bytes.
  ///
  /// - Throws: `damaged` where the file is too short for it or it exceeds the cap.
  package static func byteCount(
    prefix: [UInt8], fileByteCount: Int
  ) throws(PeftoolError) -> Int {
    guard prefix.count == lengthByteCount else {
      throw PeftoolError(
        .damaged, "the file has \(fileByteCount) bytes, a safetensors file has 8 before its header")
    }
    let count = prefix.littleEndian(at: 0, count: lengthByteCount)
    guard count <= UInt64(maximumByteCount) else {
      throw PeftoolError(
        .damaged, "a header of \(count) bytes, expected at most \(maximumByteCount)", offset: 0)
    }
    guard Int(count) <= fileByteCount - lengthByteCount else {
      throw PeftoolError(
        .damaged,
        "a header of \(count) bytes, the file has \(fileByteCount - lengthByteCount) after byte 8",
        offset: 0)
    }
    return Int(count)
  }

  /// Reads a header's text, padding included, for a file that has `dataByteCount` bytes after it.
  ///
  /// - Throws: `damaged` and `unsupported` with the offset in the file, and the tensor.
  package init(
    text: [UInt8], dataByteCount: Int, fileIndex: Int = 0,
    maximumValueCount: Int = Self.maximumValueCount
  ) throws(PeftoolError) {
    var reader = try JSONReader(
      text, baseOffset: Self.lengthByteCount, maximumDepth: Self.maximumDepth,
      maximumValueCount: maximumValueCount)
    var metadata: [(key: String, value: String)]?
    var metadataStands = false
    var entries: [SafetensorsEntry] = []
    var names: Set<ExactName> = []
    try reader.readObject { (reader, key, offset) throws(PeftoolError) in
      if key.isExactly("__metadata__") {
        guard !metadataStands else {
          throw PeftoolError(.damaged, "__metadata__ stands twice", offset: offset)
        }
        metadataStands = true
        metadata = try Self.readMetadata(&reader)
        return
      }
      guard names.insert(ExactName(key)).inserted else {
        throw PeftoolError(.damaged, "stands twice in the header", offset: offset, tensor: key)
      }
      do throws(PeftoolError) {
        entries.append(try SafetensorsEntry(&reader, name: key, offset: offset))
      } catch {
        throw error.at(tensor: key)
      }
    }
    try reader.finish()

    let order = entries.indices.sorted {
      let (a, b) = (entries[$0], entries[$1])
      return (a.begin, a.end, $0) < (b.begin, b.end, $1)
    }
    let dataStart = Self.lengthByteCount + text.count
    var position = 0
    var tensors: [TensorInfo] = []
    tensors.reserveCapacity(order.count)
    for index in order {
      let entry = entries[index]
      try entry.check(follows: position, dataByteCount: dataByteCount)
      position = entry.end
      tensors.append(
        TensorInfo(
          name: entry.name, dtype: entry.dtype, shape: entry.shape,
          byteRange: (dataStart + entry.begin)..<(dataStart + entry.end), fileIndex: fileIndex))
    }
    guard position == dataByteCount else {
      throw PeftoolError(
        .damaged,
        "the tensors take \(position) bytes, the file has \(dataByteCount) after its header",
        offset: dataStart + position)
    }
    self.tensors = tensors
    var headerOrder = Array(repeating: 0, count: order.count)
    for (place, index) in order.enumerated() { headerOrder[index] = place }
    self.headerOrder = headerOrder
    self.metadata = metadata ?? []
    hasMetadata = metadata != nil
  }

  /// `__metadata__`: strings by strings, or null.
  private static func readMetadata(
    _ reader: inout JSONReader
  ) throws(PeftoolError) -> [(key: String, value: String)]? {
    guard try reader.nextKind() != .null else {
      try reader.readNull()
      return nil
    }
    var pairs: [(key: String, value: String)] = []
    var places: [ExactName: Int] = [:]
    try reader.readObject { (reader, key, offset) throws(PeftoolError) in
      let kind = try reader.nextKind()
      guard kind == .string else {
        throw PeftoolError(
          .damaged, "__metadata__ has \(kind.rawValue) for \"\(key.printable)\", expected a string",
          offset: offset)
      }
      let value = try reader.readString()
      if let place = places.updateValue(pairs.count, forKey: ExactName(key)) {
        places[ExactName(key)] = place
        pairs[place].value = value
      } else {
        pairs.append((key, value))
      }
    }
    return pairs
  }
}
