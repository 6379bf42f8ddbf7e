import CLinux
import Glibc
import Synchronization

/// A file under construction, or a stream to standard output.
///
/// A file takes its bytes in any order and from any thread; parts whose sizes are known only once
/// they are made are appended in turn. A stream takes them in order: a writer
/// whose turn has not come waits in `write`, so whoever hands out the work in the order of the
/// output needs no other care.
package final class OutputFile: Sendable {
  /// The path that messages name: the final one, not the temporary's.
  package let path: String
  let descriptor: Int32
  private let stream: Turnstile?
  /// The turns of what is appended, and where that ends so far.
  private let turns = Turnstile()
  private let end: Mutex<Int>

  /// Bytes after which the kernel is asked to start writing to the disk, so that the last fsync
  /// finds little left to do.
  private static let writebackByteCount = 8 << 20

  /// The standard output as a stream.
  package static func standardOutput() -> OutputFile {
    OutputFile(descriptor: STDOUT_FILENO, path: "standard output", isStream: true)
  }

  /// - Parameter appendingFrom: where what is appended begins.
  init(descriptor: Int32, path: String, isStream: Bool, appendingFrom start: Int = 0) {
    end = Mutex(start)
    self.descriptor = descriptor
    self.path = path
    stream = isStream ? Turnstile() : nil
  }

  deinit {
    if stream == nil { close(descriptor) }
  }

  /// Gives the file its length and its disk blocks, so that a full disk is seen before the work.
  ///
  /// - Throws: `io` where the disk has not that many bytes free, or the file system no such files.
  func reserve(byteCount: Int) throws(PeftoolError) {
    guard byteCount > 0 else { return }
    if uninterrupted({ pef_fallocate(descriptor, 0, Int64(byteCount)) }) == 0 { return }
    guard [EOPNOTSUPP, ENOSYS, EINVAL].contains(errno) else {
      throw .system("cannot reserve \(byteCount) bytes", path: path)
    }
    // The file system cannot reserve: the length alone, and the writes will tell.
    try systemCall("cannot set the length", path: path) { ftruncate(descriptor, byteCount) }
  }

  /// Writes all of `bytes` at `offset`.
  ///
  /// A stream that cannot be written to is abandoned.
  /// - Throws: `io` with the system's message, `interrupted` where a stream was abandoned.
  package func write(_ bytes: RawSpan, at offset: Int) throws(PeftoolError) {
    // No bytes have no turn: those after them may have the same offset, and come first.
    guard bytes.byteCount > 0 else { return }
    if let stream { try stream.enter(at: offset) }
    do throws(PeftoolError) {
      try writeAll(bytes, at: offset)
    } catch {
      abandon()
      throw error
    }
    if let stream {
      stream.leave(at: offset + bytes.byteCount)
    } else if bytes.byteCount >= 1 << 16 {
      startWriteback(offset..<offset + bytes.byteCount)
    }
  }

  /// Writes bytes behind those of the turns before; gives their offset.
  ///
  /// Turns count from 0, and each has one call, from any thread: it waits until those before have
  /// told how many bytes they have, not until these are written.
  /// - Throws: as `write`, and `interrupted` where the file was abandoned.
  package func append(_ bytes: RawSpan, turn: Int) throws(PeftoolError) -> Int {
    try turns.enter(at: turn)
    let offset = end.withLock { end in
      defer { end += bytes.byteCount }
      return end
    }
    turns.leave(at: turn + 1)
    try write(bytes, at: offset)
    return offset
  }

  private func writeAll(_ bytes: RawSpan, at offset: Int) throws(PeftoolError) {
    var done = 0
    while done < bytes.byteCount {
      let count = try systemCall("cannot write", path: path) {
        // The pointer stays inside the span: done < byteCount.
        unsafe bytes.withUnsafeBytes {
          let rest = unsafe UnsafeRawBufferPointer(rebasing: $0[done...])
          return stream == nil
            ? unsafe pwrite(descriptor, rest.baseAddress, rest.count, offset + done)
            : unsafe Glibc.write(descriptor, rest.baseAddress, rest.count)
        }
      }
      guard count > 0 else {
        throw PeftoolError(.io, "cannot write: the system took no bytes", path: path)
      }
      done += count
    }
  }

  /// Copies a range of another file without its bytes passing through this program where the
  /// system can do that.
  ///
  /// - Throws: as `write` and `InputFile.read` do.
  package func copy(
    _ range: Range<Int>, of input: InputFile, to offset: Int
  ) throws(PeftoolError) {
    var done = 0
    while stream == nil, done < range.count {
      var from = Int64(range.lowerBound + done)
      var to = Int64(offset + done)
      let part = min(range.count - done, Self.writebackByteCount)
      // Both positions are this call's own variables.
      let count = uninterrupted {
        unsafe pef_copy_file_range(input.descriptor, &from, descriptor, &to, part)
      }
      if count > 0 {
        startWriteback(offset + done..<offset + done + count)
        done += count
      } else if count == 0 || [EXDEV, EOPNOTSUPP, EINVAL, ENOSYS, EPERM].contains(errno) {
        // Another file system, or one that cannot; at the end of the input the read says so.
        break
      } else {
        throw .system("cannot copy from \(input.path.printable)", path: path)
      }
    }
    var buffer = Block(byteCount: min(1 << 20, range.count - done))
    while done < range.count {
      let count = min(buffer.byteCount, range.count - done)
      var part = buffer.mutableBytes(count)
      try input.read(at: range.lowerBound + done, into: &part)
      try write(buffer.bytes(count), at: offset + done)
      done += count
    }
  }

  /// Lets waiting writers go: their bytes will never be wanted.
  package func abandon() {
    stream?.abandon()
    turns.abandon()
  }

  /// Waits until the disk has the file's bytes; a failure is final, as the pages may be lost.
  func sync() throws(PeftoolError) {
    try systemCall("cannot write to the disk", path: path) { fsync(descriptor) }
  }

  private func startWriteback(_ range: Range<Int>) {
    // Advice only: what it cannot start, fsync does.
    _ = pef_start_writeback(descriptor, Int64(range.lowerBound), Int64(range.count))
  }
}
