package import Files

/// Records of comma-separated values, one in memory at a time.
///
/// As RFC 4180 says: a comma between fields, quotes around a field that holds commas, quotes or line
/// ends, and a quote in it twice. A line ends with a newline, with or without a carriage return
/// before it; a blank line is no record. A byte order mark at the front is skipped.
package struct CSVReader {
  /// A record with its place.
  package struct Record: Equatable, Sendable {
    /// The fields without their quotes.
    package let fields: [String]
    /// The number of the line where it begins, from 1.
    package let line: Int
  }

  /// A longer record is refused: it is held in memory.
  package static let maximumByteCount = 16 << 20

  private let input: DataInput
  private let limit: Int
  private var block: (bytes: [UInt8], offset: Int) = ([], 0)
  private var position = 0
  private var line = 1

  /// The records of an input from here on, each of so many bytes at most.
  package init(_ input: DataInput, limit: Int = maximumByteCount) {
    self.input = input
    self.limit = limit
  }

  /// The next record; nil at the end.
  ///
  /// - Throws: `damaged` where a quote stands in a field without quotes, where anything but a comma
  ///   stands behind the closing quote, where a quote is never closed, and for bytes that are no
  ///   UTF-8, with line and byte; `unsupported` for a record that is too long; `io`.
  package mutating func next() throws(PeftoolError) -> Record? {
    while true {
      var (raw, fields) = ([UInt8](), CSVFields())
      let startLine = line
      var start: Int?
      while let byte = try nextByte() {
        let place = block.offset + position - 1
        start = start ?? place
        raw.append(byte)
        guard raw.count <= limit else {
          throw failure(
            .unsupported,
            "a record of more than \(limit) bytes, expected at most so many",
            line: startLine, at: start)
        }
        if let reason = fields.take(byte) {
          throw failure(.damaged, reason, line: line, at: place)
        }
        if byte == UInt8(ascii: "\n") { line += 1 }
        if fields.isAtEnd { break }
      }
      guard let start else { return nil }
      if let reason = fields.finish() {
        throw failure(.damaged, reason, line: startLine, at: start)
      }
      if fields.isBlank { continue }
      return try record(fields.fields, raw: raw, line: startLine, at: start)
    }
  }

  private mutating func nextByte() throws(PeftoolError) -> UInt8? {
    if position == block.bytes.count {
      (block, position) = (try input.next(), 0)
      if block.bytes.isEmpty { return nil }
    }
    position += 1
    return block.bytes[position - 1]
  }

  private func record(
    _ fields: [[UInt8]], raw: [UInt8], line: Int, at start: Int
  ) throws(PeftoolError) -> Record {
    do throws(PeftoolError) {
      try raw.checkUTF8(baseOffset: start)
    } catch {
      throw failure(error.kind, error.reason, line: line, at: error.offset)
    }
    return Record(fields: fields.map { String(decoding: $0, as: UTF8.self) }, line: line)
  }

  private func failure(
    _ kind: PeftoolError.Kind, _ reason: String, line: Int, at place: Int?
  ) -> PeftoolError {
    PeftoolError(kind, "line \(line): \(reason)", offset: place, path: input.path)
  }
}
