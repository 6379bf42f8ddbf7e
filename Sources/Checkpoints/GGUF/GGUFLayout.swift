package import Files
import JSON
package import Tensors

/// Where everything of a GGUF file to be written goes: its head, and the tensors' bytes.
///
/// Version 3, little-endian, tensors aligned to 32 bytes and the last one padded, too: byte for byte
/// what the Python package's `GGUFWriter` lays out. Nothing is read.
package struct GGUFLayout: Sendable {
  /// A tensor to be written.
  package struct Item: Sendable {
    /// Its name, of at most 63 bytes.
    package let name: String
    /// The type of its elements.
    package let dtype: DType
    /// Its sizes, the slowest first; at most four.
    package let shape: [Int]

    package init(name: String, dtype: DType, shape: [Int]) {
      self.name = name
      self.dtype = dtype
      self.shape = shape
    }
  }

  /// The bytes before the tensors, padding included.
  package let header: [UInt8]
  /// Where each tensor's bytes go in the file, in the order of the items.
  package let byteRanges: [Range<Int>]
  /// The size of the file.
  package let byteCount: Int

  private static let version: UInt32 = 3

  /// Lays a file out.
  ///
  /// - Throws: `unsupported` where ggml has no such type or takes no such name or shape, where a
  ///   row ends inside a block, and where the head exceeds what peftool reads.
  package init(_ fields: [GGUFField], _ items: [Item]) throws(PeftoolError) {
    precondition(
      Set(fields.map { ExactName($0.key) }).count == fields.count, "each key stands once")
    guard items.count <= GGUFHeader.maximumTensorCount else {
      throw PeftoolError(
        .unsupported,
        "\(items.count) tensors, expected at most \(GGUFHeader.maximumTensorCount)")
    }
    var bytes = GGUFHeader.magic
    bytes.append(littleEndian: Self.version)
    bytes.append(littleEndian: UInt64(items.count))
    bytes.append(littleEndian: UInt64(fields.count))
    for field in fields { field.encode(into: &bytes) }
    var offsets: [Range<Int>] = []
    var position = 0
    var names: Set<ExactName> = []
    for item in items {
      do throws(PeftoolError) {
        guard names.insert(ExactName(item.name)).inserted else {
          throw PeftoolError(.unsupported, "is to be written twice")
        }
        let end = try Self.append(item, at: position, to: &bytes)
        offsets.append(position..<end)
        position = try end.padded(to: GGUFHeader.defaultAlignment)
      } catch {
        throw error.at(tensor: item.name)
      }
    }
    let start = try bytes.count.padded(to: GGUFHeader.defaultAlignment)
    guard start <= GGUFHeader.maximumByteCount else {
      throw PeftoolError(
        .unsupported,
        "a head of \(start) bytes, expected at most \(GGUFHeader.maximumByteCount)")
    }
    header = bytes + [UInt8](repeating: 0, count: start - bytes.count)
    byteRanges = offsets.map { start + $0.lowerBound..<start + $0.upperBound }
    byteCount = start + position
  }

  /// The zeros that follow a tensor's bytes.
  package func padding(after place: Int) -> [UInt8] {
    let next = place + 1 < byteRanges.count ? byteRanges[place + 1].lowerBound : byteCount
    return [UInt8](repeating: 0, count: next - byteRanges[place].upperBound)
  }

  /// Appends a tensor's entry and gives the end of its bytes.
  private static func append(
    _ item: Item, at position: Int, to bytes: inout [UInt8]
  ) throws(PeftoolError) -> Int {
    guard let number = GGMLType.number(item.dtype) else {
      throw PeftoolError(.unsupported, "is \(item.dtype.rawValue), which ggml has not")
    }
    guard item.name.utf8.count <= GGUFHeader.maximumNameByteCount else {
      throw PeftoolError(
        .unsupported,
        "a name of \(item.name.utf8.count) bytes, expected at most "
          + "\(GGUFHeader.maximumNameByteCount)")
    }
    guard item.shape.count <= GGUFHeader.maximumDimensionCount else {
      throw PeftoolError(
        .unsupported,
        "\(item.shape.count) dimensions, expected at most \(GGUFHeader.maximumDimensionCount)")
    }
    bytes.append(string: item.name.utf8)
    bytes.append(littleEndian: UInt32(item.shape.count))
    for dimension in item.shape.reversed() { bytes.append(littleEndian: UInt64(dimension)) }
    bytes.append(littleEndian: number)
    bytes.append(littleEndian: UInt64(position))
    let byteCount = try TensorInfo.byteCount(dtype: item.dtype, shape: item.shape)
    let (end, overflow) = position.addingReportingOverflow(byteCount)
    guard !overflow else {
      throw PeftoolError(.unsupported, "ends past 2^63 bytes, more than a file can have")
    }
    return end
  }
}
