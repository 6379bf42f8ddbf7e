package import Files

/// Lines of a file, one in memory at a time.
package struct LineReader {
  /// A line without its end.
  package struct Line {
    /// The bytes, without the newline and without a carriage return before it.
    package let bytes: [UInt8]
    /// Its number, from 1.
    package let number: Int
    /// The place of its first byte in the file.
    package let offset: Int

    /// Whether there is nothing but white space in it.
    package var isBlank: Bool {
      bytes.allSatisfy { $0 == 0x20 || $0 == 0x09 || $0 == 0x0D }
    }
  }

  /// A longer line is refused: it is held in memory, and no example has so much text.
  package static let maximumByteCount = 16 << 20

  private let input: DataInput
  private let limit: Int
  private var block: (bytes: [UInt8], offset: Int) = ([], 0)
  private var position = 0
  /// The number of the last line, from 1.
  package private(set) var number = 0
  private var isInLongLine = false

  /// The lines of an input from here on, each of so many bytes at most.
  package init(_ input: DataInput, limit: Int = maximumByteCount) {
    self.input = input
    self.limit = limit
  }

  /// The next line; nil at the end.
  ///
  /// A newline at the end begins no further line.
  /// - Throws: `io`; `unsupported` for a line that is too long, with its number.
  package mutating func next() throws(PeftoolError) -> Line? {
    try nextResult()?.get()
  }

  /// The next line, or the error for one that is too long, behind which the reader goes on; nil at
  /// the end.
  ///
  /// - Throws: `io`.
  package mutating func nextResult() throws(PeftoolError) -> Result<Line, PeftoolError>? {
    if isInLongLine { try skipLine() }
    var bytes: [UInt8] = []
    var start: Int?
    while true {
      if position == block.bytes.count {
        (block, position) = (try input.next(), 0)
        if block.bytes.isEmpty { return start.map { .success(line(bytes, at: $0)) } }
      }
      start = start ?? block.offset + position
      let end = block.bytes[position...].firstIndex(of: UInt8(ascii: "\n"))
      bytes += block.bytes[position..<(end ?? block.bytes.count)]
      guard bytes.count <= limit else {
        (isInLongLine, number) = (true, number + 1)
        return .failure(
          PeftoolError(
            .unsupported, "line \(number): more than \(limit) bytes, expected at most so many",
            path: input.path))
      }
      position = end.map { $0 + 1 } ?? block.bytes.count
      if end != nil { return .success(line(bytes, at: start ?? 0)) }
    }
  }

  /// Goes behind the end of the line.
  private mutating func skipLine() throws(PeftoolError) {
    isInLongLine = false
    while true {
      if let end = block.bytes[position...].firstIndex(of: UInt8(ascii: "\n")) {
        position = end + 1
        return
      }
      (block, position) = (try input.next(), 0)
      if block.bytes.isEmpty { return }
    }
  }

  private mutating func line(_ bytes: [UInt8], at start: Int) -> Line {
    number += 1
    let end = bytes.last == UInt8(ascii: "\r") ? bytes.count - 1 : bytes.count
    return Line(bytes: Array(bytes[..<end]), number: number, offset: start)
  }
}
