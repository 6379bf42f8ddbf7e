package import Files
import JSON
package import Tensors

extension SafetensorsHeader {
  /// The order in which a writer lays tensors out.
  package enum Order: Sendable {
    /// The reference library's: the widest dtype first (its enum from the end), then by name.
    case reference
    /// As the caller lists them.
    case given
  }

  /// What a tensor needs to be named in a header.
  package struct Item: Sendable {
    /// Its name, any text.
    package let name: String
    /// The type of its elements.
    package let dtype: DType
    /// Its sizes, the slowest first.
    package let shape: [Int]

    package init(name: String, dtype: DType, shape: [Int]) {
      self.name = name
      self.dtype = dtype
      self.shape = shape
    }
  }

  /// A header ready to be written, and where the tensors go.
  package struct Encoded: Sendable {
    /// The file's first bytes: the length, the JSON text and its padding.
    package let bytes: [UInt8]
    /// For each tensor, in the caller's order, its bytes' place in the file.
    package let byteRanges: [Range<Int>]
    /// The places in the caller's list in the order in which the bytes lie.
    package let fileOrder: [Int]

    /// The size of the whole file.
    package var fileByteCount: Int {
      fileOrder.last.map { byteRanges[$0].upperBound } ?? bytes.count
    }
  }

  /// Makes a header, byte for byte that of the reference library 0.8 for the same tensors.
  ///
  /// The pairs of `metadata` keep their order; the reference library writes several in a random
  /// one. With nil there is no `__metadata__`.
  /// - Throws: `damaged` where a name stands twice or is `__metadata__`, where sizes overflow, and
  ///   where the header exceeds the cap that readers have; `unsupported` for blocks of ggml.
  package static func encode(
    _ items: [Item], metadata: [(key: String, value: String)]? = nil, order: Order = .reference
  ) throws(PeftoolError) -> Encoded {
    var fileOrder = Array(items.indices)
    if order == .reference {
      let rank = Dictionary(
        uniqueKeysWithValues: DType.safetensors.enumerated().map { ($0.element, $0.offset) })
      fileOrder.sort {
        let (a, b) = (items[$0], items[$1])
        return a.dtype == b.dtype
          ? a.name.precedesByBytes(b.name) : rank[a.dtype, default: 0] > rank[b.dtype, default: 0]
      }
    }

    var text: [UInt8] = [UInt8(ascii: "{")]
    if let metadata {
      text += "\"__metadata__\":{".utf8
      for (index, pair) in metadata.enumerated() {
        if index > 0 { text.append(UInt8(ascii: ",")) }
        JSON.append(pair.key, to: &text)
        text.append(UInt8(ascii: ":"))
        JSON.append(pair.value, to: &text)
      }
      text.append(UInt8(ascii: "}"))
    }
    var names: Set<ExactName> = [ExactName("__metadata__")]
    var offsets = Array(repeating: 0..<0, count: items.count)
    var position = 0
    for index in fileOrder {
      let item = items[index]
      guard names.insert(ExactName(item.name)).inserted else {
        throw PeftoolError(.damaged, "cannot be written: the name is taken", tensor: item.name)
      }
      guard !item.dtype.isBlock else {
        throw PeftoolError(
          .unsupported, "cannot be written: safetensors has no \(item.dtype.rawValue)",
          tensor: item.name)
      }
      let end = try position.adding(byteCount(of: item), tensor: item.name)
      offsets[index] = position..<end
      if text.count > 1 { text.append(UInt8(ascii: ",")) }
      JSON.append(item.name, to: &text)
      let shape = item.shape.map(String.init).joined(separator: ",")
      text += ":{\"dtype\":\"\(item.dtype.rawValue)\",\"shape\":[\(shape)]".utf8
      text += ",\"data_offsets\":[\(position),\(end)]}".utf8
      position = end
    }
    text.append(UInt8(ascii: "}"))
    text += repeatElement(UInt8(ascii: " "), count: (8 - text.count % 8) % 8)
    guard text.count <= maximumByteCount else {
      throw PeftoolError(
        .unsupported, "a header of \(text.count) bytes, expected at most \(maximumByteCount)")
    }
    let dataStart = lengthByteCount + text.count
    _ = try position.adding(dataStart, tensor: nil)
    let length = UInt64(text.count).littleEndianBytes(lengthByteCount)
    return Encoded(
      bytes: length + text,
      byteRanges: offsets.map { ($0.lowerBound + dataStart)..<($0.upperBound + dataStart) },
      fileOrder: fileOrder)
  }

  private static func byteCount(of item: Item) throws(PeftoolError) -> Int {
    do throws(PeftoolError) {
      return try TensorInfo.byteCount(dtype: item.dtype, shape: item.shape)
    } catch {
      throw error.at(tensor: item.name)
    }
  }
}

extension Int {
  fileprivate func adding(_ other: Int, tensor: String?) throws(PeftoolError) -> Int {
    let (sum, overflow) = addingReportingOverflow(other)
    guard !overflow else {
      throw PeftoolError(
        .unsupported, "ends past 2^63 bytes, more than a file can have", tensor: tensor)
    }
    return sum
  }
}
