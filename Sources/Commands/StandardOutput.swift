import Files
import Glibc
import Reports

/// The results of a verb on their way to standard output, in large pieces, each write checked.
struct StandardOutput: ~Copyable {
  private var buffer: [UInt8] = []

  private static let flushByteCount = 1 << 16

  /// The terminal's width, or 80 columns.
  static var width: Int { Terminal.width(STDOUT_FILENO) ?? Terminal.defaultWidth }

  /// The terminal's width; nil in a pipe or a file, where a table of names keeps them whole.
  static var terminalWidth: Int? { Terminal.width(STDOUT_FILENO) }

  /// Writes the whole text.
  ///
  /// - Throws: `io` with the system's message: a full disk, a closed standard output.
  static func print(_ text: String) throws(PeftoolError) {
    var output = StandardOutput()
    try output.write(text)
    try output.finish()
  }

  /// Takes text; some of it may be written at once.
  ///
  /// - Throws: as `print`.
  mutating func write(_ text: String) throws(PeftoolError) {
    buffer.append(contentsOf: text.utf8)
    if buffer.count >= Self.flushByteCount { try flush() }
  }

  /// Writes what is left; without it that is lost.
  ///
  /// - Throws: as `print`.
  consuming func finish() throws(PeftoolError) {
    try flush()
  }

  private mutating func flush() throws(PeftoolError) {
    var done = 0
    while done < buffer.count {
      done += try systemCall("cannot write", path: "standard output") {
        // The pointer stays inside the buffer: done < count.
        unsafe buffer.withUnsafeBytes {
          unsafe Glibc.write(
            STDOUT_FILENO, $0.baseAddress.map { unsafe $0 + done }, $0.count - done)
        }
      }
    }
    buffer.removeAll(keepingCapacity: true)
  }
}
