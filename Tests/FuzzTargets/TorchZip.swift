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

/// A file of torch.save is refused with an error, or its tensors are read from within it.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  precondition(ftruncate(descriptor, 0) == 0)
  precondition(count == 0 || pwrite(descriptor, start, count, 0) == count)
  do throws(PeftoolError) {
    let file = try TorchFile(opening: "/proc/self/fd/\(descriptor)")
    var total = 0
    for tensor in file.tensors {
      precondition(tensor.byteRange.lowerBound >= 0 && tensor.byteRange.upperBound <= count)
      total += tensor.byteCount
      precondition(total <= TorchFile.maximumExpansion * count + TorchFile.freeByteCount)
      guard tensor.byteCount < 1 << 16 else { continue }
      let bytes = try file.bytes(of: tensor)
      precondition(bytes.count == tensor.byteCount)
    }
  } catch {
    precondition(error.description.utf8.count < 8192, "a message that is too long")
  }
  return 0
}
