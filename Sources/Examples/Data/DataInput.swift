package import Files
import Glibc

/// Bytes that are read once from front to back: a file, standard input, or an array.
package final class DataInput {
  /// The path that stands for standard input.
  package static let standardInputPath = "-"

  /// The path for messages.
  package let path: String
  /// How many bytes have been read.
  private var offset = 0
  private let source: Source

  private enum Source {
    case file(InputFile)
    case standardInput
    case memory([UInt8])
  }

  /// The most bytes that one read gives.
  private static let blockByteCount = 1 << 18

  /// Opens a file, or standard input for `-`.
  ///
  /// - Throws: as `InputFile.init(opening:)`.
  package init(opening path: String) throws(PeftoolError) {
    if path == Self.standardInputPath {
      self.path = "standard input"
      source = .standardInput
    } else {
      self.path = path
      source = .file(try InputFile(opening: path))
    }
  }

  /// Reads from an array.
  package init(_ bytes: [UInt8], path: String = "memory") {
    self.path = path
    source = .memory(bytes)
  }

  /// The next bytes with the place of the first of them; none at the end.
  ///
  /// A byte order mark at the front is left out.
  /// - Throws: `io` where reading fails, `different` where a file was changed meanwhile.
  func next() throws(PeftoolError) -> (bytes: [UInt8], offset: Int) {
    let start = offset
    var bytes = try block()
    guard start == 0 else { return (bytes, start) }
    while bytes.count < byteOrderMark.count {
      let more = try block()
      if more.isEmpty { break }
      bytes += more
    }
    guard bytes.starts(with: byteOrderMark) else { return (bytes, start) }
    bytes.removeFirst(byteOrderMark.count)
    // Were these all, an empty array would be the end.
    return bytes.isEmpty ? try (block(), byteOrderMark.count) : (bytes, byteOrderMark.count)
  }

  private func block() throws(PeftoolError) -> [UInt8] {
    let block: [UInt8]
    switch source {
    case .file(let file):
      block = try file.bytes(offset..<min(file.byteCount, offset + Self.blockByteCount))
      if block.isEmpty { try file.verifyUnchanged() }
    case .memory(let bytes):
      block = Array(bytes[offset..<min(bytes.count, offset + Self.blockByteCount)])
    case .standardInput:
      var buffer = [UInt8](repeating: 0, count: Self.blockByteCount)
      let count = try systemCall("cannot read", path: path) {
        // read writes no more than the buffer's bytes.
        unsafe buffer.withUnsafeMutableBytes { unsafe read(STDIN_FILENO, $0.baseAddress, $0.count) }
      }
      buffer.removeLast(buffer.count - count)
      block = buffer
    }
    offset += block.count
    return block
  }

  /// All bytes with the place of the first of them.
  ///
  /// - Throws: as `next()`, and `unsupported` where they are more than `limit`.
  package func all(limit: Int) throws(PeftoolError) -> (bytes: [UInt8], offset: Int) {
    var (all, start) = try next()
    while true {
      guard all.count <= limit else {
        throw PeftoolError(
          .unsupported, "has more than \(limit) bytes, expected at most so many", path: path)
      }
      let block = try next().bytes
      if block.isEmpty { return (all, start) }
      all += block
    }
  }
}

/// What some editors write at the front of UTF-8; it is no part of the text.
private let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]
