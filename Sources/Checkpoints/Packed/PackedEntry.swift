package import Files
import JSON

/// What the header frame says of a block: the frame that it is packed into.
package struct PackedEntry: Equatable, Sendable {
  /// The bytes that it takes in the header frame.
  package static let byteCount = 24

  /// The checksum of the frame.
  package let checksum: UInt64
  // There may be millions of entries: none is larger than it must be.
  private let base: UInt64
  private let size: UInt32
  private let isDifference: Bool

  /// The checksum of the base's bytes that the block is the difference to; nil where it is none.
  package var baseChecksum: UInt64? { isDifference ? base : nil }
  /// The frame's size.
  package var frameByteCount: Int { Int(size) }

  /// The entry of a frame of at most `BlockPacker.maximumFrameByteCount` bytes.
  package init(checksum: UInt64, baseChecksum: UInt64?, frameByteCount: Int) {
    self.checksum = checksum
    base = baseChecksum ?? 0
    size = UInt32(frameByteCount)
    isDifference = baseChecksum != nil
  }

  /// Reads an entry among other bytes: both checksums, the frame's size in 4 bytes, and in 4 bytes
  /// 0, or 1 for a difference.
  ///
  /// - Throws: `damaged`.
  init(_ bytes: [UInt8], at start: Int) throws(PeftoolError) {
    let base = bytes.littleEndian(at: start + 8, count: 8)
    let size = Int(bytes.littleEndian(at: start + 16, count: 4))
    let kind = bytes.littleEndian(at: start + 20, count: 4)
    guard kind < 2, kind == 1 || base == 0 else {
      throw PeftoolError(
        .damaged,
        "a block of kind \(kind) with the base's checksum \(base.checksumText), "
          + "expected kind 0 without one or kind 1")
    }
    guard (1...BlockPacker.maximumFrameByteCount).contains(size) else {
      throw PeftoolError(
        .damaged,
        "a block packed into \(size) bytes, expected 1 to \(BlockPacker.maximumFrameByteCount)")
    }
    self.init(
      checksum: bytes.littleEndian(at: start, count: 8), baseChecksum: kind == 1 ? base : nil,
      frameByteCount: size)
  }

  /// Compares the base's bytes with those that the block was packed with.
  ///
  /// - Throws: `different` where they are others.
  func checkBase(_ bytes: RawSpan) throws(PeftoolError) {
    let found = Checksum.of(bytes)
    guard let expected = baseChecksum, found != expected else { return }
    throw PeftoolError(
      .different,
      "the base's bytes have the checksum \(found.checksumText), expected "
        + "\(expected.checksumText): this is not the base that the differences were made from")
  }

  /// The entry's bytes.
  var bytes: [UInt8] {
    checksum.littleEndianBytes(8) + (baseChecksum ?? 0).littleEndianBytes(8)
      + UInt64(frameByteCount).littleEndianBytes(4)
      + UInt64(baseChecksum == nil ? 0 : 1).littleEndianBytes(4)
  }
}

// The header frame.
extension PackedContents {
  /// A skippable frame of zstd.
  static let skippableMagic: [UInt8] = [0x50, 0x2A, 0x4D, 0x18]
  /// What tells the frame from others, and its version.
  static let magic = Array("PEFTPAK1".utf8)

  /// The size of the header frame, which does not depend on how well blocks are packed.
  package var headerByteCount: Int {
    Self.prefixByteCount + text.count + tensorMembers.reduce(0) { $0 + $1.beginning.count }
      + blockCount * PackedEntry.byteCount
  }

  /// The header frame with the entries of all blocks.
  ///
  /// - Throws: `unsupported` where it exceeds the cap.
  package func header(_ entries: [PackedEntry]) throws(PeftoolError) -> [UInt8] {
    precondition(entries.count == blockCount, "an entry a block")
    try checkHeaderSize()
    let text = text
    var rest = UInt64(text.count).littleEndianBytes(8) + text
    for member in tensorMembers { rest += member.beginning }
    for entry in entries { rest += entry.bytes }
    // Any bytes may be read as bytes.
    let checksum = unsafe Checksum.of(rest.span.bytes)
    return Self.skippableMagic + UInt64(Self.magic.count + 8 + rest.count).littleEndianBytes(4)
      + Self.magic + checksum.littleEndianBytes(8) + rest
  }

  /// - Throws: `unsupported` where the header frame exceeds the cap.
  package func checkHeaderSize() throws(PeftoolError) {
    guard headerByteCount <= Self.maximumHeaderByteCount else {
      throw PeftoolError(
        .unsupported,
        "a header of \(headerByteCount) bytes, expected at most \(Self.maximumHeaderByteCount)")
    }
  }

  private var text: [UInt8] {
    let files = members.map { member in
      JSON.object(
        [
          .init("name", .string(member.name)), .init("bytes", .number(member.byteCount)),
        ] + (member.header == nil ? [] : [.init("header", .number(member.beginning.count))]))
    }
    let json = JSON.object(
      [.init("files", .array(files))] + (base.map { [.init("base", .string($0))] } ?? []))
    return Array(json.text().utf8)
  }
}
