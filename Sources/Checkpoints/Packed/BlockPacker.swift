package import Files
package import Tensors

/// Packs blocks, each into a zstd frame of its own; one worker's.
///
/// Memory: two blocks and a frame, and the compressor's tables, which level 3 has 3 MB of and the
/// highest level some 60 MB.
package struct BlockPacker: ~Copyable {
  /// How a block's bytes are looked at.
  package enum Search: Sendable {
    /// By how often each byte stands there, and hardly for repetitions: for planes of floats, where
    /// what repeats by chance takes more room than it saves.
    case frequencies
    /// At a level of zstd: for whole numbers and texts.
    case level(Int)
  }

  /// The levels of zstd that can be asked for.
  package static let levels = 1...19
  /// The largest frame of a block: zstd's bound for what cannot be made smaller.
  package static let maximumFrameByteCount = Compressor.bound(PackedContents.blockByteCount)

  private let compressor: Compressor
  private var differences = Block(byteCount: 0)
  private var planes = Block(byteCount: 0)
  private var output = Block(byteCount: 0)
  private var frameByteCount = 0

  /// A packer without a block.
  ///
  /// - Throws: `io` where there is no memory for zstd.
  package init() throws(PeftoolError) { compressor = try Compressor() }

  /// The frame of the last block.
  package var frame: RawSpan {
    @_lifetime(borrow self) get { output.bytes(frameByteCount) }
  }

  /// Packs the bytes of a block, or their differences to a base's bytes; gives its entry.
  ///
  /// - Throws: `io` where there is no memory for zstd's tables.
  package mutating func pack(
    _ bytes: RawSpan, _ layout: BytePlanes, base: RawSpan? = nil, search: Search
  ) throws(PeftoolError) -> PackedEntry {
    let count = bytes.byteCount
    precondition((1...PackedContents.blockByteCount).contains(count), "a block")
    var baseChecksum: UInt64?
    if let base {
      baseChecksum = Checksum.of(base)
      Self.subtract(base, from: bytes, layout, into: &differences)
      frameByteCount = try Self.compress(
        differences, count, layout.ofDifferences, search, compressor, &planes, &output)
    } else {
      frameByteCount = try Self.compress(bytes, layout, search, compressor, &planes, &output)
    }
    return PackedEntry(
      checksum: Checksum.of(output.bytes(frameByteCount)),
      baseChecksum: baseChecksum, frameByteCount: frameByteCount)
  }

  private static func subtract(
    _ base: RawSpan, from bytes: RawSpan, _ layout: BytePlanes, into differences: inout Block
  ) {
    differences.reserve(bytes.byteCount)
    var span = differences.mutableBytes(bytes.byteCount)
    layout.subtract(base, from: bytes, into: &span)
  }

  private static func compress(
    _ block: borrowing Block, _ count: Int, _ layout: BytePlanes, _ search: Search,
    _ compressor: borrowing Compressor, _ planes: inout Block, _ output: inout Block
  ) throws(PeftoolError) -> Int {
    try compress(block.bytes(count), layout, search, compressor, &planes, &output)
  }

  /// Splits the bytes into planes and compresses those; gives the frame's size.
  private static func compress(
    _ bytes: RawSpan, _ layout: BytePlanes, _ search: Search, _ compressor: borrowing Compressor,
    _ planes: inout Block, _ output: inout Block
  ) throws(PeftoolError) -> Int {
    guard layout.width > 1 else { return try compressor.compress(bytes, search, into: &output) }
    planes.reserve(bytes.byteCount)
    var span = planes.mutableBytes(bytes.byteCount)
    layout.split(bytes, into: &span)
    return try compressor.compress(planes.bytes(bytes.byteCount), search, into: &output)
  }
}
