import Checkpoints
import Files
import Glibc
import Tensors

/// A file in memory, without a name, that every input is written to in turn.
private let descriptor = {
  let path = "/dev/shm/peftool-fuzz-\(getpid())"
  defer { unlink(path) }
  return open(path, O_CREAT | O_EXCL | O_RDWR, 0o600)
}()

/// A packed file is refused with an error, or every block of it is unpacked or refused.
///
/// An input is written twice: as it is, and with all checksums put right, since an attacker can make
/// those, and a fuzzer cannot.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  var bytes = Array(UnsafeBufferPointer(start: start, count: count))
  read(bytes)
  correctFrames(&bytes)
  correctHeader(&bytes)
  read(bytes)
  return 0
}

private func read(_ bytes: [UInt8]) {
  precondition(ftruncate(descriptor, 0) == 0)
  precondition(pwrite(descriptor, bytes, bytes.count, 0) == bytes.count)
  do throws(PeftoolError) {
    // A base that no input names: nothing but this file is opened.
    let file = try PackedFile(
      opening: "/proc/self/fd/\(descriptor)", base: "/proc/self/fd/\(descriptor)")
    precondition(file.contents.headerByteCount <= PackedContents.maximumHeaderByteCount)
    var total = 0
    for piece in file.contents.pieces {
      for block in piece.blocks {
        total += piece.range(ofBlock: block).count
        guard total <= 1 << 22 else { return }
        var bytes = Block(byteCount: piece.range(ofBlock: block).count)
        var span = bytes.mutableBytes(piece.range(ofBlock: block).count)
        try file.readBlock(block, of: piece, into: &span)
      }
    }
    for tensor in file.tensors {
      let bytes = try file.bytes(of: tensor)
      precondition(bytes.count == tensor.byteCount)
    }
  } catch {
    precondition(error.description.utf8.count < 8192, "a message that is too long")
  }
}

/// Where the header frame ends, if the file has that much.
private func headerEnd(_ bytes: [UInt8]) -> Int? {
  guard bytes.count >= 32 else { return nil }
  let end = 8 + bytes[4..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
  return (32...bytes.count).contains(end) ? end : nil
}

private func put(_ checksum: UInt64, into bytes: inout [UInt8], at offset: Int) {
  for place in 0..<8 { bytes[offset + place] = UInt8(truncatingIfNeeded: checksum >> (8 * place)) }
}

private func correctHeader(_ bytes: inout [UInt8]) {
  guard let end = headerEnd(bytes) else { return }
  let part = Array(bytes[24..<end])
  put(Checksum.of(part.span.bytes), into: &bytes, at: 16)
}

/// Takes the frames from the end, as their sizes say.
private func correctFrames(_ bytes: inout [UInt8]) {
  guard let end = headerEnd(bytes) else { return }
  var (entry, frameEnd) = (end - 24, bytes.count)
  while entry >= 32 {
    let size = bytes[entry + 16..<entry + 20].reversed().reduce(0) { $0 << 8 | Int($1) }
    guard size > 0, frameEnd - size >= end else { return }
    let frame = Array(bytes[frameEnd - size..<frameEnd])
    put(Checksum.of(frame.span.bytes), into: &bytes, at: entry)
    entry -= 24
    frameEnd -= size
    guard frameEnd > end else { return }
  }
}
