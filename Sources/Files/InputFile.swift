import Glibc

/// A regular file that is read by blocks, and that must stay as it is while it is read.
///
/// Reads go through `pread` into the caller's buffer, so a file that is cut short while it is read
/// ends in an error and never in SIGBUS. `verifyUnchanged` looks at size, times and inode again.
package final class InputFile: Sendable {
  /// The path as the user gave it, for messages.
  package let path: String
  /// The size when the file was opened.
  package let byteCount: Int
  let descriptor: Int32
  private let identity: Identity

  private struct Identity: Equatable {
    let device: UInt, inode: UInt, size: Int
    let modified: (Int, Int), changed: (Int, Int)

    init(_ status: stat) {
      device = UInt(status.st_dev)
      inode = UInt(status.st_ino)
      size = Int(status.st_size)
      modified = (status.st_mtim.tv_sec, status.st_mtim.tv_nsec)
      changed = (status.st_ctim.tv_sec, status.st_ctim.tv_nsec)
    }

    static func == (a: Identity, b: Identity) -> Bool {
      a.device == b.device && a.inode == b.inode && a.size == b.size
        && a.modified == b.modified && a.changed == b.changed
    }
  }

  /// Opens a regular file, following symbolic links.
  ///
  /// - Throws: `io` where it cannot be opened, as a file whose name is no UTF-8 never can;
  ///   `unsupported` where it is no regular file: a fifo would hang and a device never end.
  package init(opening path: String) throws(PeftoolError) {
    let descriptor: Int32
    do throws(PeftoolError) {
      descriptor = try systemCall("cannot open", path: path) {
        unsafe open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
      }
    } catch {
      // Bytes that are no UTF-8 have become this character on their way here.
      guard path.unicodeScalars.contains("\u{FFFD}") else { throw error }
      throw PeftoolError(
        error.kind, "\(error.reason); a name that is no UTF-8 must be changed first", path: path)
    }
    let status: stat
    do {
      status = try fileStatus(descriptor, path: path)
    } catch {
      close(descriptor)
      throw error
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      close(descriptor)
      let what = status.st_mode & S_IFMT == S_IFDIR ? "a folder" : "no regular file"
      throw PeftoolError(.unsupported, "is \(what), expected a regular file", path: path)
    }
    _ = fcntl(descriptor, F_SETFL, 0)
    self.path = path
    self.descriptor = descriptor
    identity = Identity(status)
    byteCount = identity.size
  }

  deinit { close(descriptor) }

  /// Fills `buffer` with the bytes from `offset` on.
  ///
  /// - Throws: `io` where reading fails, `damaged` where the file ends before the buffer is full.
  package func read(at offset: Int, into buffer: inout MutableRawSpan) throws(PeftoolError) {
    var done = 0
    while done < buffer.byteCount {
      let count = try systemCall("cannot read", path: path) {
        // The pointer stays inside the buffer: done < byteCount, and pread writes no more than
        // byteCount - done bytes.
        unsafe buffer.withUnsafeMutableBytes {
          unsafe pread(
            descriptor, $0.baseAddress.map { unsafe $0 + done }, $0.count - done, offset + done)
        }
      }
      guard count > 0 else {
        throw PeftoolError(
          .damaged,
          "the file ends here, \(buffer.byteCount - done) bytes short"
            + (offset + done < byteCount ? "; it was changed while it was read" : ""),
          offset: offset + done, path: path)
      }
      done += count
    }
  }

  /// The bytes of a range, in an array of their own.
  ///
  /// - Throws: as `read(at:into:)`, and `damaged` where the range ends past the file, before any
  ///   memory is taken.
  package func bytes(_ range: Range<Int>) throws(PeftoolError) -> [UInt8] {
    guard range.lowerBound >= 0, range.upperBound <= byteCount else {
      throw PeftoolError(
        .damaged,
        "needs \(range.count) bytes, the file has \(max(0, byteCount - range.lowerBound))",
        offset: range.lowerBound, path: path)
    }
    var bytes = [UInt8](repeating: 0, count: range.count)
    var span = bytes.mutableSpan
    // Any bit pattern is a UInt8.
    var raw = unsafe span.mutableBytes
    try read(at: range.lowerBound, into: &raw)
    return bytes
  }

  /// Looks at size, times and inode again: called after the last read and before a commit.
  ///
  /// - Throws: `different` where another program changed or replaced the file meanwhile.
  package func verifyUnchanged() throws(PeftoolError) {
    guard Identity(try fileStatus(descriptor, path: path)) == identity else {
      throw PeftoolError(
        .different, "changed while it was read; run again when nothing writes to it", path: path)
    }
  }
}
