package import Files
import LinearAlgebra
import Synchronization
package import Tensors

/// The base that the blocks of a packed file are differences to, opened once it is needed.
package final class PackedBase: Sendable {
  /// Its path as the packed file names it.
  package let name: String
  private let given: String?
  private let packedPath: String
  private let state = Mutex(State.unopened)

  private enum State {
    case unopened
    case open(Checkpoint)
    case failed(PeftoolError)
  }

  /// A base that is looked for where the user says, or else by the path in the packed file, and
  /// beside that file by its name.
  init(named name: String, given: String?, beside packedPath: String) {
    self.name = name
    self.given = given
    self.packedPath = packedPath
  }

  /// The base, opened at the first call; where that fails, every call throws the same.
  ///
  /// - Throws: `io` where it is not there; `unsupported` where it is a file of differences itself;
  ///   what is wrong with it.
  package func checkpoint() throws(PeftoolError) -> Checkpoint {
    try state.withLock { (state) throws(PeftoolError) in
      switch state {
      case .open(let base): return base
      case .failed(let error): throw error
      case .unopened: break
      }
      do throws(PeftoolError) {
        let base = try open()
        state = .open(base)
        return base
      } catch {
        state = .failed(error)
        throw error
      }
    }
  }

  private func open() throws(PeftoolError) -> Checkpoint {
    let base = try Checkpoint(opening: path())
    // One that needs another, or itself, could go on without end.
    guard base.packed?.base == nil else {
      throw PeftoolError(
        .unsupported, "is made of differences to another base itself", path: base.path)
    }
    return base
  }

  private func path() throws(PeftoolError) -> String {
    if let given { return given }
    let beside = Folder.path(Folder.parent(of: packedPath), Folder.name(of: name))
    guard let found = [name, beside].first(where: Folder.exists) else {
      throw PeftoolError(
        .io,
        "is made of differences to \(name.printable), which is not there, nor is "
          + "\(beside.printable); convert --delta-from BASE says where it is",
        path: packedPath)
    }
    return found
  }

  /// Fills a buffer with bytes of the base's tensor that a packed one is the difference to.
  ///
  /// - Throws: `different` where the base has no tensor of that name, dtype and shape; as
  ///   `checkpoint` and `TensorSource.read`.
  func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    let base = try checkpoint()
    guard let own = base.counterpart(of: tensor) else {
      throw PeftoolError(
        .different,
        "the base \(base.path.printable) has no such \(tensor.dtype.rawValue) of shape "
          + "\(tensor.shape.shapeText): it is not the one that the differences were made from")
    }
    try base.source.read(own, bytes: range, into: &buffer)
  }

  /// Looks again at the files, where they have been opened.
  func verifyUnchanged() throws(PeftoolError) {
    try state.withLock { (state) throws(PeftoolError) in
      if case .open(let base) = state { try base.source.verifyUnchanged() }
    }
  }
}

extension Checkpoint {
  /// The tensor of the same name, dtype and shape; nil where there is none, or it is empty.
  package func counterpart(of tensor: TensorInfo) -> TensorInfo? {
    guard let own = self[tensor.name], own.dtype == tensor.dtype,
      own.shape == tensor.shape, own.byteCount > 0
    else { return nil }
    return own
  }
}

extension PackedFile {
  /// The bytes of the base that blocks are differences to.
  package var baseByteCount: Int {
    differences.reduce(0) { $0 + contents.piece(ofBlock: $1).range(ofBlock: $1).count }
  }

  /// Whether some of a tensor's blocks are differences.
  package func needsBase(for tensor: TensorInfo) -> Bool {
    contents.piece(of: tensor)?.blocks.contains { entries[$0].baseChecksum != nil } == true
  }

  /// The numbers of the blocks that are differences.
  private var differences: [Int] { entries.indices.filter { entries[$0].baseChecksum != nil } }

  /// Compares the checksums of the base's bytes, before a byte is restored from them.
  ///
  /// - Parameter progress: is told of bytes read, from any thread.
  /// - Throws: `different` where the base is another; as `PackedBase.checkpoint`.
  package func checkBase(
    threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) {
    guard let base else { return }
    _ = try base.checkpoint()
    let blocks = differences
    try forEachBlock(count: blocks.count, threads: threads) {
      (queue, current) throws(PeftoolError) in
      var bytes = Block(byteCount: PackedContents.blockByteCount)
      while let place = queue.next() {
        current = place
        let piece = contents.piece(ofBlock: blocks[place])
        guard let tensor = piece.tensor else { continue }
        let range = piece.range(ofBlock: blocks[place])
        var span = bytes.mutableBytes(range.count)
        let start = piece.range.lowerBound
        do throws(PeftoolError) {
          try base.read(
            tensor, bytes: range.lowerBound - start..<range.upperBound - start, into: &span)
          try entries[blocks[place]].checkBase(bytes.bytes(range.count))
        } catch {
          throw error.at(tensor: tensor.name, path: path)
        }
        progress(range.count)
      }
    }
  }
}
