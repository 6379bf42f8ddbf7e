import Files
import Glibc

/// What comes from standard input.
enum StandardInput {
  /// What it is called in messages.
  static let name = "standard input"

  private static let blockByteCount = 1 << 16

  /// All of it.
  ///
  /// - Throws: `io` with the system's message, `unsupported` where there is too much.
  static func bytes(atMost maximumByteCount: Int) throws(PeftoolError) -> [UInt8] {
    var bytes: [UInt8] = []
    var block = [UInt8](repeating: 0, count: blockByteCount)
    while true {
      let count = try systemCall("cannot read", path: name) {
        // read fills no more than the block.
        unsafe block.withUnsafeMutableBytes {
          unsafe Glibc.read(STDIN_FILENO, $0.baseAddress, $0.count)
        }
      }
      guard count > 0 else { return bytes }
      bytes += block[..<count]
      guard bytes.count <= maximumByteCount else {
        throw PeftoolError(
          .unsupported, "has more than \(maximumByteCount) bytes, the most that are taken",
          path: name)
      }
    }
  }
}
