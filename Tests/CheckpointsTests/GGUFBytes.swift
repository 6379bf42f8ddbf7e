import Checkpoints
import Files

/// A GGUF file put together piece by piece, right or wrong.
struct GGUFBytes {
  var version: UInt32 = 3
  /// The counts that the head says; nil for the true ones.
  var tensorCount: UInt64?
  var pairCount: UInt64?
  private var pairs: [[UInt8]] = []
  private var tensors: [[UInt8]] = []
  var alignment = 32
  var data: [UInt8] = []

  /// Adds a pair: the value's type and its bytes.
  mutating func add(_ key: String, _ type: UInt32, _ value: [UInt8]) {
    pairs.append(Self.string(key) + Self.little(type) + value)
  }

  /// Adds a tensor's entry.
  mutating func add(
    tensor name: String, _ dimensions: [UInt64], type: UInt32 = 0, at offset: UInt64
  ) {
    tensors.append(
      Self.string(name) + Self.little(UInt32(dimensions.count))
        + dimensions.flatMap(Self.little) + Self.little(type) + Self.little(offset))
  }

  /// The head without its padding.
  var head: [UInt8] {
    Array("GGUF".utf8) + Self.little(version) + Self.little(tensorCount ?? UInt64(tensors.count))
      + Self.little(pairCount ?? UInt64(pairs.count)) + pairs.flatMap { $0 }
      + tensors.flatMap { $0 }
  }

  /// The whole file.
  var bytes: [UInt8] {
    let head = head
    return head + Array(repeating: 0, count: (alignment - head.count % alignment) % alignment)
      + data
  }

  /// The head as it is read.
  func header() throws(PeftoolError) -> GGUFHeader {
    let bytes = bytes
    return try GGUFHeader(parsing: bytes, fileByteCount: bytes.count)
  }

  static func little<I: FixedWidthInteger>(_ value: I) -> [UInt8] {
    (0..<I.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }

  static func string(_ text: String) -> [UInt8] {
    little(UInt64(text.utf8.count)) + Array(text.utf8)
  }

  static func array(_ type: UInt32, _ elements: [[UInt8]]) -> [UInt8] {
    little(type) + little(UInt64(elements.count)) + elements.flatMap { $0 }
  }
}
