import Files
import Synchronization
import Tensors

/// Unpacks blocks; one worker's.
///
/// Memory: a frame and a block, for differences two more, each as large as the largest so far; and
/// zstd's tables of 150 kB. zstd needs no window of its own, as it decodes a frame in one call into
/// the block, which is as large as the frame's contents may be.
struct BlockUnpacker: ~Copyable {
  private let decompressor: Decompressor
  private var frame = Block(byteCount: 0)
  private var planes = Block(byteCount: 0)
  // Those of differences alone.
  private var base = Block(byteCount: 0)
  private var differences = Block(byteCount: 0)

  init() throws(PeftoolError) { decompressor = try Decompressor() }

  /// Fills `bytes`, a block's, from its frame, or of a difference with the differences put together.
  ///
  /// - Parameter readBase: fills a buffer with the base's bytes; called for a difference only.
  ///   With nil the differences themselves are unpacked, and left as they are.
  /// - Throws: `io`, `damaged` where the frame is not what was packed, `different` where the base's
  ///   bytes are others; and what `readBase` throws.
  mutating func unpack(
    _ entry: PackedEntry, at offset: Int, of file: InputFile, _ layout: BytePlanes,
    into bytes: inout MutableRawSpan,
    readBase: ((inout MutableRawSpan) throws(PeftoolError) -> Void)?
  ) throws(PeftoolError) {
    try Self.readFrame(entry, at: offset, of: file, into: &frame)
    let count = bytes.byteCount
    guard entry.baseChecksum != nil, let readBase else {
      let layout = entry.baseChecksum == nil ? layout : layout.ofDifferences
      try Self.unpack(frame, entry, layout, decompressor, &planes, into: &bytes)
      return
    }
    try Self.read(entry, into: &base, count, readBase)
    try Self.unpack(frame, entry, layout, decompressor, &planes, into: &differences, count)
    layout.add(differences.bytes(count), to: base.bytes(count), into: &bytes)
  }

  private static func read(
    _ entry: PackedEntry, into base: inout Block, _ count: Int,
    _ readBase: (inout MutableRawSpan) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    base.reserve(count)
    var span = base.mutableBytes(count)
    try readBase(&span)
    try entry.checkBase(base.bytes(count))
  }

  /// Unpacks differences.
  private static func unpack(
    _ frame: borrowing Block, _ entry: PackedEntry, _ layout: BytePlanes,
    _ decompressor: borrowing Decompressor, _ planes: inout Block, into block: inout Block,
    _ count: Int
  ) throws(PeftoolError) {
    block.reserve(count)
    var span = block.mutableBytes(count)
    try unpack(frame, entry, layout.ofDifferences, decompressor, &planes, into: &span)
  }

  private static func readFrame(
    _ entry: PackedEntry, at offset: Int, of file: InputFile, into frame: inout Block
  ) throws(PeftoolError) {
    frame.reserve(entry.frameByteCount)
    var span = frame.mutableBytes(entry.frameByteCount)
    try file.read(at: offset, into: &span)
    let found = Checksum.of(frame.bytes(entry.frameByteCount))
    guard found == entry.checksum else {
      throw PeftoolError(
        .damaged,
        "the checksum of the packed block is \(found.checksumText), expected "
          + entry.checksum.checksumText, offset: offset)
    }
  }

  private static func unpack(
    _ block: borrowing Block, _ entry: PackedEntry, _ layout: BytePlanes,
    _ decompressor: borrowing Decompressor, _ planes: inout Block,
    into bytes: inout MutableRawSpan
  ) throws(PeftoolError) {
    let frame = block.bytes(entry.frameByteCount)
    guard layout.width > 1 else {
      try decompressor.decompress(frame, into: &bytes)
      return
    }
    planes.reserve(bytes.byteCount)
    var span = planes.mutableBytes(bytes.byteCount)
    try decompressor.decompress(frame, into: &span)
    layout.join(planes.bytes(bytes.byteCount), into: &bytes)
  }
}

/// Unpackers that nobody uses just now: no more than there have been threads at once.
final class UnpackerPool: Sendable {
  /// An unpacker where a list can hold it; one thread has it at a time, as it is taken off the list.
  private final class Lent: @unchecked Sendable {
    var unpacker: BlockUnpacker

    init() throws(PeftoolError) { unpacker = try BlockUnpacker() }
  }

  private let unpackers = Mutex((free: [Lent](), count: 0))

  /// How many there are: as many as threads have asked at once.
  var count: Int { unpackers.withLock { $0.count } }

  /// Lends an unpacker for the length of a call.
  ///
  /// - Throws: `io` where there is no memory for another, and what `body` throws.
  func withUnpacker(
    _ body: (inout BlockUnpacker) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    let known = unpackers.withLock { unpackers in
      let known = unpackers.free.popLast()
      if known == nil { unpackers.count += 1 }
      return known
    }
    let lent = if let known { known } else { try Lent() }
    defer { unpackers.withLock { $0.free.append(lent) } }
    try body(&lent.unpacker)
  }
}
