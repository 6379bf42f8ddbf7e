import Checkpoints
import Files
import LinearAlgebra
import Tensors

/// A safetensors checkpoint packed into one file, with what lies beside it.
///
/// One pass: blocks of 1 MiB are packed on all threads and appended in their order, so that the
/// bytes do not depend on the number of threads; the header frame, whose size is known beforehand,
/// is written last. They are the same wherever libzstd is of the same version.
///
/// Peak memory: the headers, some 150 bytes a block, and for each thread 5 blocks of 1 MiB, 7 with
/// a packed base, and what zstd needs for the level.
struct Packing: Sendable {
  /// What blocks of a dtype, or of the other files, have become.
  struct Share: Equatable, Sendable {
    /// The dtype; nil for other files.
    let dtype: DType?
    var byteCount = 0
    var packedByteCount = 0

    /// The order of a report.
    fileprivate func stands(before other: Share) -> Bool {
      guard let dtype, let next = other.dtype else { return dtype != nil }
      return (other.byteCount, dtype.rawValue) < (byteCount, next.rawValue)
    }
  }

  /// What came of it.
  struct Summary: Sendable {
    /// The sizes of all files before.
    var byteCount = 0
    /// The size of the packed file.
    var packedByteCount = 0
    /// By dtype, the one with most bytes first, and the other files at the end.
    var shares: [Share] = []
  }

  /// The level of zstd for whole numbers and texts.
  static let defaultLevel = 3

  private let checkpoint: Checkpoint
  private let base: Checkpoint?
  private let level: Int
  private let inputs: [InputFile]
  private let contents: PackedContents
  /// The tensors that become differences to the base's.
  let differenceCount: Int

  /// Plans the packing; of the tensors nothing is read.
  ///
  /// - Parameter base: the path of a model to whose tensors the differences are packed, where it has
  ///   one of the same name, dtype and shape.
  /// - Throws: `unsupported` where the checkpoint is no safetensors; `different` where the base has
  ///   nothing in common with it; what is wrong with the base.
  init(
    _ checkpoint: Checkpoint, base path: String? = nil, level: Int = Self.defaultLevel
  ) throws(PeftoolError) {
    self.checkpoint = checkpoint
    self.level = level
    base = try path.map { (path) throws(PeftoolError) in try Checkpoint(opening: path) }
    do throws(PeftoolError) {
      (inputs, contents) = try Self.contents(of: checkpoint, base: path)
    } catch {
      throw error.at(path: checkpoint.path)
    }
    guard let base else {
      differenceCount = 0
      return
    }
    guard base.packed?.base == nil else {
      throw PeftoolError(
        .unsupported, "is made of differences to another base itself", path: base.path)
    }
    differenceCount = checkpoint.tensors.count { base.counterpart(of: $0) != nil }
    guard differenceCount > 0 else {
      throw PeftoolError(
        .different,
        "has no tensor of the same name, dtype and shape as one of \(base.path.printable)",
        path: checkpoint.path)
    }
  }

  /// The files to be packed, and what they hold.
  private static func contents(
    of checkpoint: Checkpoint, base: String?
  ) throws(PeftoolError) -> ([InputFile], PackedContents) {
    let shards = checkpoint.sharded?.shards ?? checkpoint.singleFile.map { [$0] } ?? []
    guard !shards.isEmpty else {
      throw PeftoolError(
        .unsupported,
        "is \(checkpoint.format.rawValue), expected safetensors: only those are packed")
    }
    var files = shards.map { ($0.file, $0.beginning) }
    if let sharded = checkpoint.sharded {
      files.append((try InputFile(opening: sharded.path), []))
    }
    for name in checkpoint.otherFiles {
      guard let folder = checkpoint.directory else { continue }
      files.append((try InputFile(opening: Folder.path(folder, name)), []))
    }
    let contents = try PackedContents(
      files.map { (Folder.name(of: $0.0.path), $0.0.byteCount, $0.1) }, base: base)
    try contents.checkHeaderSize()
    return (files.map(\.0), contents)
  }

  /// The bytes that will be read, without the base's.
  var byteCount: Int { inputs.reduce(0) { $0 + $1.byteCount } }
  /// The number of tensors.
  var tensorCount: Int { checkpoint.tensors.count }
  /// The number of files.
  var fileCount: Int { inputs.count }

  /// What the user should know.
  var notes: [String] {
    guard !checkpoint.otherWeights.isEmpty else { return [] }
    let names = checkpoint.otherWeights.map(\.printable).joined(separator: ", ")
    return ["left out, as other weights: \(names)"]
  }

  /// Packs, and puts the file in its place.
  ///
  /// - Parameter progress: is told of bytes done, from any thread.
  /// - Throws: `io`, `damaged` where an input is cut short, `different` where one changed meanwhile.
  func run(
    to path: String, isForced: Bool, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> Summary {
    var output = try StagedOutput(.file, at: path, force: isForced, apartFrom: sources)
    let entries = try write(
      to: output.createFile(byteCount: contents.headerByteCount), threads: threads, progress)
    try output.commit()
    return summary(entries)
  }

  /// All files that are read.
  private var sources: [InputFile] { inputs + (base.map(\.source.files) ?? []) }

  /// Fills the file.
  private func write(
    to file: OutputFile, threads: Int?, _ progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> [PackedEntry] {
    var pass = OutputPass<Int>()
    for block in 0..<contents.blockCount { pass.append(block) }
    let entries = try pass.run(
      into: [file], threads: threads ?? availableProcessorCount, progress: progress,
      worker: { Worker() },
      perform: { (worker, block) throws(PeftoolError) -> PackedEntry in
        let piece = contents.piece(ofBlock: block)
        let entry = try worker.pack(block, of: piece, for: self, into: file)
        progress(piece.range(ofBlock: block).count)
        return entry
      })
    let header = try contents.header(entries)
    // Any bytes may be read as bytes.
    try unsafe file.write(header.span.bytes, at: 0)
    for source in sources { try source.verifyUnchanged() }
    return entries
  }

  private func summary(_ entries: [PackedEntry]) -> Summary {
    var shares: [DType?: Share] = [:]
    for (block, entry) in entries.enumerated() {
      let piece = contents.piece(ofBlock: block)
      let dtype = piece.tensor?.dtype
      var share = shares[dtype] ?? Share(dtype: dtype)
      share.byteCount += piece.range(ofBlock: block).count
      share.packedByteCount += entry.frameByteCount
      shares[dtype] = share
    }
    var summary = Summary()
    summary.byteCount = byteCount
    summary.packedByteCount = entries.reduce(contents.headerByteCount) { $0 + $1.frameByteCount }
    summary.shares = shares.values.sorted { $0.stands(before: $1) }
    return summary
  }
}

extension Packing {
  /// One thread's blocks and compressor.
  private struct Worker: ~Copyable {
    private var bytes = Block(byteCount: PackedContents.blockByteCount)
    private var baseBytes = Block(byteCount: PackedContents.blockByteCount)
    // Made with the first block, where a lack of memory can be told.
    private var packer: BlockPacker?

    mutating func pack(
      _ block: Int, of piece: PackedContents.Piece, for packing: Packing, into file: OutputFile
    ) throws(PeftoolError) -> PackedEntry {
      var packer = if let known = packer.take() { known } else { try BlockPacker() }
      let range = piece.range(ofBlock: block)
      let layout = piece.tensor.map { BytePlanes($0.dtype) } ?? .none
      var span = bytes.mutableBytes(range.count)
      try packing.inputs[piece.member].read(at: range.lowerBound, into: &span)
      let entry: PackedEntry
      if let tensor = piece.tensor, let base = packing.base,
        let own = base.counterpart(of: tensor)
      {
        let start = piece.range.lowerBound
        var span = baseBytes.mutableBytes(range.count)
        try base.source.read(
          own, bytes: range.lowerBound - start..<range.upperBound - start, into: &span)
        entry = try packer.pack(
          bytes.bytes(range.count), layout, base: baseBytes.bytes(range.count),
          search: .frequencies)
      } else {
        entry = try packer.pack(
          bytes.bytes(range.count), layout, search: packing.search(for: piece.tensor?.dtype))
      }
      _ = try file.append(packer.frame, turn: block)
      self.packer = consume packer
      return entry
    }
  }

  /// How blocks of a dtype are packed; of texts without one.
  private func search(for dtype: DType?) -> BlockPacker.Search {
    switch dtype {
    case nil, .bool, .u8, .i8, .u16, .i16, .u32, .i32, .u64, .i64: .level(level)
    default: .frequencies
    }
  }
}
