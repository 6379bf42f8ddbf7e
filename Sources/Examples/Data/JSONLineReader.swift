import Files
import JSON

/// What is read of a file with a JSON value a line; blank lines are none.
struct JSONLineReader {
  private var lines: LineReader
  private let path: String

  /// What is read of one line.
  static let limits = JSON.Limits(
    byteCount: LineReader.maximumByteCount, valueCount: JSON.Limits.configuration.valueCount,
    depth: JSON.Limits.configuration.depth)

  /// The values of an input from here on.
  init(_ input: DataInput) {
    lines = LineReader(input)
    path = input.path
  }

  /// What `read` makes of the next value and the number of its line; nil at the end.
  ///
  /// - Throws: `damaged` for a line that is no JSON, and what `read` throws, with the line's number
  ///   and, where it breaks JSON's rules, the place of the byte; as `LineReader.next()`.
  mutating func next<Value>(
    _ read: (_ json: JSON, _ line: Int) throws(PeftoolError) -> Value
  ) throws(PeftoolError) -> Value? {
    while let line = try lines.next() {
      if line.isBlank { continue }
      do throws(PeftoolError) {
        return try read(JSON(parsing: line.bytes, limits: Self.limits), line.number)
      } catch {
        throw PeftoolError(
          error.kind, "line \(line.number): \(error.reason)",
          offset: error.offset.map { line.offset + $0 }, path: path)
      }
    }
    return nil
  }
}
