package import Files
import LinearAlgebra
import Synchronization
package import Tensors

/// A packed checkpoint: safetensors files, and what lay beside them, in one file of zstd frames.
///
/// `Formats/packed.md` describes it. In memory are the header frame; for each thread that reads a
/// frame and a block, and two more for differences; and of what has been read the last blocks, two
/// for each thread and at least 8: with 1 MiB a block, 4 or 6 MiB a thread. Each block is checked
/// before any of its bytes is given out.
package struct PackedFile: TensorSource {
  /// The open file.
  package let file: InputFile
  /// What it holds.
  package let contents: PackedContents
  /// The blocks' entries, in their order.
  package let entries: [PackedEntry]
  /// The base that blocks may be differences to; nil without one.
  package let base: PackedBase?
  package let tensors: [TensorInfo]
  /// The pairs that stand in every safetensors file with the same value.
  package let metadata: [(key: String, value: String)]
  /// Where each 256th frame begins.
  private let offsets: [Int]
  private let unpackers = UnpackerPool()
  private let cache = BlockCache()

  private static let offsetStride = 256

  /// The file's path as the user gave it.
  package var path: String { file.path }
  /// The one file, once for each safetensors file in it, as `TensorInfo.fileIndex` counts those.
  package var files: [InputFile] {
    Array(repeating: file, count: contents.tensorMembers.count)
  }

  /// The base of differences, which is opened for it.
  package var origins: [any TensorSource] {
    get throws(PeftoolError) {
      guard let base else { return [] }
      return [try base.checkpoint().source]
    }
  }

  /// Opens a packed file and reads its header frame.
  ///
  /// - Parameter base: where the base is, for a file of differences; nil looks for it by the path in
  ///   the file, and beside the file by its name, once it is needed.
  /// - Throws: `io`, `damaged` and `unsupported`, each with the path.
  package init(opening path: String, base: String? = nil) throws(PeftoolError) {
    try self.init(InputFile(opening: path), base: base)
  }

  /// Reads the header frame of an open file.
  ///
  /// - Throws: as `init(opening:base:)`.
  package init(_ file: InputFile, base: String? = nil) throws(PeftoolError) {
    do throws(PeftoolError) {
      self.file = file
      var end: Int
      (contents, entries, end) = try PackedContents.read(file)
      var offsets: [Int] = []
      for (place, entry) in entries.enumerated() {
        if place % Self.offsetStride == 0 { offsets.append(end) }
        end += entry.frameByteCount
      }
      guard end == file.byteCount else {
        throw PeftoolError(
          .damaged, "the file has \(file.byteCount) bytes, expected \(end) by its header")
      }
      self.offsets = offsets
      tensors = contents.tensors
      metadata = SafetensorsHeader.commonMetadata(
        contents.tensorMembers.compactMap { $0.header?.metadata })
      self.base = contents.base.map { PackedBase(named: $0, given: base, beside: file.path) }
    } catch {
      throw error.at(path: file.path)
    }
  }

  /// Where a block's frame begins.
  private func offset(of block: Int) -> Int {
    let start = block - block % Self.offsetStride
    return entries[start..<block].reduce(offsets[block / Self.offsetStride]) {
      $0 + $1.frameByteCount
    }
  }

  /// Fills a buffer with the bytes of a whole block.
  ///
  /// - Parameter needsBase: whether a difference is to become what it stands for; else all but the
  ///   base is checked, and the bytes mean nothing.
  /// - Throws: `io`, `damaged`, and `different` where the base is another, with path and tensor.
  package func readBlock(
    _ block: Int, of piece: PackedContents.Piece, needsBase: Bool = true,
    into bytes: inout MutableRawSpan
  ) throws(PeftoolError) {
    let range = piece.range(ofBlock: block)
    precondition(bytes.byteCount == range.count, "a buffer for the block")
    do throws(PeftoolError) {
      let start = piece.range.lowerBound
      let readBase = { (bytes: inout MutableRawSpan) throws(PeftoolError) in
        // Who has read the entries has seen that a difference has both.
        guard let base, let tensor = piece.tensor else { return }
        try base.read(
          tensor, bytes: range.lowerBound - start..<range.upperBound - start, into: &bytes)
      }
      try unpackers.withUnpacker { (unpacker) throws(PeftoolError) in
        try unpacker.unpack(
          entries[block], at: offset(of: block), of: file,
          piece.tensor.map { BytePlanes($0.dtype) } ?? .none, into: &bytes,
          readBase: needsBase ? readBase : nil)
      }
    } catch {
      throw error.at(tensor: piece.tensor?.name, path: path)
    }
  }

  package func place(of tensor: TensorInfo) -> (file: InputFile, range: Range<Int>)? { nil }

  package func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    precondition(range.count == buffer.byteCount, "a range and a buffer of one size")
    precondition(
      range.lowerBound >= 0 && range.upperBound <= tensor.byteCount, "a range within the tensor")
    guard !range.isEmpty, let piece = contents.piece(of: tensor) else { return }
    let size = PackedContents.blockByteCount
    for number in range.lowerBound / size...(range.upperBound - 1) / size {
      let block = piece.blocks.lowerBound + number
      let whole = number * size..<min((number + 1) * size, tensor.byteCount)
      let wanted = whole.clamped(to: range)
      var part = buffer._mutatingExtracting(
        wanted.lowerBound - range.lowerBound..<wanted.upperBound - range.lowerBound)
      if wanted == whole, !cache.holds(block) {
        try readBlock(block, of: piece, into: &part)
        continue
      }
      let entry = try cache.entry(
        block, byteCount: whole.count, capacity: max(8, 2 * unpackers.count)
      ) {
        (bytes) throws(PeftoolError) in try readBlock(block, of: piece, into: &bytes)
      }
      entry.copy(
        wanted.lowerBound - whole.lowerBound..<wanted.upperBound - whole.lowerBound, into: &part)
    }
  }

  package func verifyUnchanged() throws(PeftoolError) {
    try file.verifyUnchanged()
    try base?.verifyUnchanged()
  }

  /// What is wrong with the blocks of some pieces, each unpacked and compared with its checksum; in
  /// the blocks' order.
  ///
  /// Memory: a block a thread.
  /// - Parameter needsBase: whether differences are compared with their base, too.
  package func faults(
    in pieces: [PackedContents.Piece], needsBase: Bool, threads: Int
  ) throws(PeftoolError) -> [PeftoolError] {
    let blocks = pieces.flatMap(\.blocks)
    let faults = Mutex<[(block: Int, error: PeftoolError)]>([])
    try forEachBlock(count: blocks.count, threads: threads) {
      (queue, current) throws(PeftoolError) in
      var memory = Block(byteCount: PackedContents.blockByteCount)
      while let place = queue.next() {
        current = place
        let block = blocks[place]
        let piece = contents.piece(ofBlock: block)
        var bytes = memory.mutableBytes(piece.range(ofBlock: block).count)
        do throws(PeftoolError) {
          try readBlock(block, of: piece, needsBase: needsBase, into: &bytes)
        } catch {
          // The other blocks may still be read: every fault counts.
          faults.withLock { $0.append((block, error)) }
        }
      }
    }
    return faults.withLock { $0.sorted { $0.block < $1.block }.map(\.error) }
  }
}
