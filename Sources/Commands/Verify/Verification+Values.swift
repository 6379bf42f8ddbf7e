import Checkpoints
import Files
import Reports
import Tensors

// Numbers and checksums.
extension Verification {
  mutating func checkValues(_ source: SoundFiles, threads: Int, isQuiet: Bool)
    throws(PeftoolError)
  {
    let tensors = source.tensors
    let (packed, isBaseThere) = (source.packed, openBase(of: source.packed))
    // Differences are no numbers without their base.
    func isRead(_ tensor: TensorInfo) -> Bool {
      tensor.dtype.hasNonfinite && (isBaseThere || packed?.needsBase(for: tensor) != true)
    }
    let progress = ProgressLine(
      "verifying", totalByteCount: tensors.reduce(0) { $0 + (isRead($1) ? $1.byteCount : 0) },
      isQuiet: isQuiet)
    let found = try nonfiniteElements(
      of: source.reader, where: isRead, threads: threads, progress: progress)
    progress.finish()
    for (tensor, elements) in zip(tensors, found) {
      let path = source.files[tensor.fileIndex].path
      if elements.count > 0 {
        faults.append(
          PeftoolError(
            .damaged, elements.reason(in: tensor), tensor: tensor.name, path: path))
      }
      if let failure = elements.failure { faults.append(failure.at(path: path)) }
    }
    if faults.isEmpty { checked.append("every number finite") }
    if let packed {
      faults += try packed.faults(
        in: packed.contents.pieces.filter { !($0.tensor.map(isRead) ?? false) },
        needsBase: isBaseThere, threads: threads)
      if faults.isEmpty { checked.append("every checksum") }
    }
  }

  /// Opens the base of differences, if any; one that cannot be opened is one fault, for all blocks.
  mutating func openBase(of packed: PackedFile?) -> Bool {
    do throws(PeftoolError) {
      _ = try packed?.base?.checkpoint()
      return true
    } catch {
      faults.append(error)
      return false
    }
  }
}
