import Files
import Fixtures
import Tensors
import Testing

@testable import Checkpoints

/// One test a rule; `Formats/packed.md` lists them.
@Suite struct PackedRefusalTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// The sample of the tests: one tensor of two blocks' worth of nothing much, and a text.
  private func sample() throws -> PackedSample {
    var sample = PackedSample()
    try sample.add("a.safetensors", [("w", .bf16, [8])])
    sample.files.append(("config.json", Array("{}".utf8), 0))
    return sample
  }

  /// The header frame of a text, headers and entries as they are given, with its checksum.
  private func frame(_ text: String, _ rest: [UInt8] = [], textByteCount: UInt64? = nil) -> [UInt8]
  {
    let content =
      (textByteCount ?? UInt64(text.utf8.count)).littleEndianBytes(8) + Array(text.utf8) + rest
    return PackedContents.skippableMagic + UInt64(16 + content.count).littleEndianBytes(4)
      + PackedContents.magic + Checksum.of(content.span.bytes).littleEndianBytes(8) + content
  }

  private func assertRejects(
    _ bytes: [UInt8], _ reason: String, kind: PeftoolError.Kind = .damaged,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let path = try scratch.write("x.zst", bytes)
    let error = #expect(throws: PeftoolError.self, sourceLocation: sourceLocation) {
      try unpacked(PackedFile(opening: path))
    }
    #expect(error?.kind == kind, "\(error?.description ?? "")", sourceLocation: sourceLocation)
    #expect(
      error?.reason.contains(reason) == true, "\(error?.description ?? "")",
      sourceLocation: sourceLocation)
  }

  /// The sample's file with its header changed and the checksum made to fit again.
  private func changed(_ change: (inout [UInt8], Int) -> Void) throws -> [UInt8] {
    var (bytes, count) = try sample().packed()
    change(&bytes, count)
    let checksum = Checksum.of(Array(bytes[24..<count]).span.bytes)
    bytes.replaceSubrange(16..<24, with: checksum.littleEndianBytes(8))
    return bytes
  }

  /// The offset of the first entry.
  private func entry(_ headerByteCount: Int) -> Int { headerByteCount - 2 * PackedEntry.byteCount }

  @Test func aFileTooShortForAPrefix() throws {
    try assertRejects(Array(sample().packed().bytes.prefix(31)), "a packed file has 32 before")
  }

  @Test func anotherMagicOrVersion() throws {
    for place in [0, 8, 15] {
      var bytes = try sample().packed().bytes
      bytes[place] ^= 3
      try assertRejects(bytes, "does not begin as a packed file")
    }
  }

  @Test func aHeaderPastTheEnd() throws {
    var bytes = try sample().packed().bytes
    bytes.replaceSubrange(4..<8, with: UInt64(bytes.count - 7).littleEndianBytes(4))
    try assertRejects(bytes, "a header of \(bytes.count + 1) bytes, the file has \(bytes.count)")
  }

  @Test func aHeaderOverTheCap() throws {
    var bytes = try sample().packed().bytes
    let limit = PackedContents.maximumHeaderByteCount
    bytes.replaceSubrange(4..<8, with: UInt64(limit - 7).littleEndianBytes(4))
    bytes += [UInt8](repeating: 0, count: limit)
    try assertRejects(bytes, "expected at most \(limit)", kind: .unsupported)
  }

  @Test func anotherHeaderChecksum() throws {
    var bytes = try sample().packed().bytes
    bytes[40] ^= 1
    try assertRejects(bytes, "the header's checksum is")
  }

  @Test func aTextPastTheHeader() throws {
    try assertRejects(frame("{}", textByteCount: 3), "a text of 3 bytes, the header has 2 left")
    try assertRejects(frame("{}", textByteCount: .max), "a text of 18446744073709551615 bytes")
  }

  @Test(
    arguments: [
      ("{", "found the end of the text"), ("[]", "an object"), ("{}", "files"),
      (#"{"files":[]}"#, "has no safetensors file in it"),
      (#"{"files":[{"name":"a","bytes":-1}]}"#, "a file has -1 bytes"),
      (#"{"files":[{"name":"a","bytes":1.5}]}"#, "bytes"),
      (#"{"files":[{"name":"a","bytes":8,"header":0}]}"#, "a header of 0"),
      (#"{"files":[{"name":"a","bytes":8,"header":9}]}"#, "0 are left"),
      (#"{"files":[{"name":"a"}]}"#, "bytes"),
      (#"{"files":[],"files":[]}"#, "twice"),
    ])
  func aListThatIsNone(text: String, reason: String) throws {
    try assertRejects(frame(text), reason)
  }

  @Test(arguments: [#"{"files":[],"x":1}"#, #"{"files":[{"name":"a","bytes":1,"x":1}]}"#])
  func aKeyThatIsUnknown(text: String) throws {
    try assertRejects(frame(text), "the key \"x\"", kind: .unsupported)
  }

  @Test(arguments: ["", ".", "..", "a/b", "/a", "a\\u0000b"])
  func aNameThatLeadsElsewhere(name: String) throws {
    try assertRejects(
      frame(#"{"files":[{"name":"\#(name)","bytes":0}]}"#),
      "a file's name is empty, has a folder or stands twice")
  }

  @Test func aNameThatStandsTwiceInTheList() throws {
    try assertRejects(
      frame(#"{"files":[{"name":"a","bytes":0},{"name":"a","bytes":0}]}"#), "stands twice")
  }

  @Test func moreBlocksThanAHeaderHolds() throws {
    try assertRejects(
      frame(#"{"files":[{"name":"a","bytes":9223372036854775807}]}"#), "there are more than",
      kind: .unsupported)
  }

  @Test func aBaseThatIsNoPath() throws {
    for base in ["", "a\\u0000"] {
      try assertRejects(frame(#"{"files":[],"base":"\#(base)"}"#), "base is no path")
    }
  }

  @Test func aHeaderThatDoesNotFitItsFile() throws {
    var sample = PackedSample()
    try sample.add("a.safetensors", [("w", .u8, [2])])
    let count = sample.files[0].headerByteCount
    let header = Array(sample.files[0].bytes.prefix(count))
    let size = sample.files[0].bytes.count
    try assertRejects(
      frame(#"{"files":[{"name":"a","bytes":\#(size + 1),"header":\#(count)}]}"#, header),
      "in it a: ")
    try assertRejects(
      frame(
        #"{"files":[{"name":"a","bytes":\#(size),"header":\#(count - 1)}]}"#,
        Array(header.dropLast())), "in it a: ")
  }

  @Test func shardsWithoutAnIndex() throws {
    var sample = PackedSample()
    try sample.add("a.safetensors", [("a", .u8, [2])])
    try sample.add("b.safetensors", [("b", .u8, [2])])
    #expect(throws: PeftoolError.self) { try sample.contents() }
    sample.files.append(("a.safetensors.index.json", Array("{}".utf8), 0))
    #expect(try sample.contents().tensors.count == 2)
  }

  @Test func aTensorInTwoFiles() throws {
    var sample = PackedSample()
    try sample.add("a.safetensors", [("a", .u8, [2])])
    try sample.add("b.safetensors", [("a", .u8, [2])])
    sample.files.append(("a.safetensors.index.json", Array("{}".utf8), 0))
    let error = #expect(throws: PeftoolError.self) { try sample.contents() }
    #expect(error?.reason == "stands in two of the files in it")
  }

  @Test func moreOrFewerEntriesThanBlocks() throws {
    let bytes = try changed { bytes, count in
      bytes.insert(contentsOf: [UInt8](repeating: 0, count: 24), at: count)
      bytes.replaceSubrange(4..<8, with: UInt64(count + 16).littleEndianBytes(4))
    }
    // The checksum of what is longer now.
    var fitting = bytes
    let end = 8 + Int(fitting.littleEndian(at: 4, count: 4))
    let checksum = Checksum.of(Array(fitting[24..<end]).span.bytes)
    fitting.replaceSubrange(16..<24, with: checksum.littleEndianBytes(8))
    try assertRejects(fitting, "72 bytes for 2 blocks, expected 48")
  }

  @Test func aFrameSizeThatLies() throws {
    for size in [0, UInt64(BlockPacker.maximumFrameByteCount + 1), UInt64(UInt32.max)] {
      let bytes = try changed { bytes, count in
        let place = entry(count) + 16
        bytes.replaceSubrange(place..<place + 4, with: size.littleEndianBytes(4))
      }
      try assertRejects(bytes, "a block packed into \(size) bytes, expected 1 to")
    }
    let longer = try changed { bytes, count in bytes[entry(count) + 16] += 1 }
    try assertRejects(longer, "expected \(longer.count + 1) by its header")
  }

  @Test func bytesAfterTheLastBlock() throws {
    let bytes = try sample().packed().bytes
    try assertRejects(bytes + [0], "the file has \(bytes.count + 1) bytes, expected \(bytes.count)")
    try assertRejects(Array(bytes.dropLast()), "expected \(bytes.count) by its header")
  }

  @Test func aBlockOfAnUnknownKind() throws {
    try assertRejects(changed { bytes, count in bytes[entry(count) + 20] = 2 }, "a block of kind 2")
    try assertRejects(changed { bytes, count in bytes[entry(count) + 8] = 1 }, "a block of kind 0")
  }

  @Test func aDifferenceWithoutABase() throws {
    try assertRejects(
      changed { bytes, count in bytes[entry(count) + 20] = 1 }, "a difference, expected a base")
  }

  @Test func anotherBlockChecksum() throws {
    var bytes = try sample().packed().bytes
    bytes[bytes.count - 1] ^= 1
    try assertRejects(bytes, "the checksum of the packed block is")
  }

  /// The sample with its last block, the text's, replaced by another frame that has its checksum.
  private func withLastFrame(_ frame: [UInt8]) throws -> [UInt8] {
    try changed { bytes, count in
      let place = count - PackedEntry.byteCount
      let size = Int(bytes.littleEndian(at: place + 16, count: 4))
      bytes = bytes.dropLast(size) + frame
      bytes.replaceSubrange(
        place..<place + 8, with: Checksum.of(frame.span.bytes).littleEndianBytes(8))
      bytes.replaceSubrange(place + 16..<place + 20, with: UInt64(frame.count).littleEndianBytes(4))
    }
  }

  private func zstd(_ bytes: [UInt8]) throws -> [UInt8] {
    var packer = try BlockPacker()
    _ = try packer.pack(bytes.span.bytes, .none, search: .level(3))
    return packer.frame.array
  }

  @Test func contentsOfAnotherSize() throws {
    try assertRejects(withLastFrame(zstd(Array("{} ".utf8))), "with 2 packed in it")
    try assertRejects(withLastFrame(zstd(Array("{".utf8))), "with 2 packed in it")
    try assertRejects(
      withLastFrame(zstd([UInt8](repeating: 0, count: 1 << 20))), "with 2 packed in it")
    try assertRejects(withLastFrame(zstd(Array("{}".utf8)) + [0]), "is no zstd frame")
  }

  @Test func aWindowOfGigabytes() throws {
    // A frame whose header asks for a window of 2^41 bytes, and names no size of its contents.
    try assertRejects(
      withLastFrame([0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xF8, 0x11, 0x00, 0x00, 0x7B, 0x7D]),
      "is no zstd frame")
  }

  @Test func aFrameWithoutAChecksum() throws {
    var frame = try zstd(Array("{}".utf8))
    frame[4] &= ~4
    try assertRejects(withLastFrame(frame.dropLast(4)), "is no zstd frame with a checksum")
  }

  /// Those of zstd 0.5 to 0.7, which libzstd can be built to read.
  @Test(arguments: [0x25, 0x26, 0x27] as [UInt8]) func aFrameOfAnEarlierRelease(
    magic: UInt8
  ) throws {
    var frame = try zstd(Array("{}".utf8))
    frame[0] = magic
    try assertRejects(withLastFrame(frame), "is no zstd frame with a checksum")
  }

  @Test func aFrameThatIsNone() throws {
    try assertRejects(withLastFrame([1, 2, 3, 4]), "is no zstd frame")
    try assertRejects(withLastFrame([1, 2, 3, 4, 5]), "is no zstd frame")
    // Of its own checksum the last byte is another.
    var frame = try zstd(Array("{}".utf8))
    frame[frame.count - 1] ^= 1
    try assertRejects(withLastFrame(frame), "cannot be decompressed")
  }

  @Test func aBaseOfDifferencesItself() throws {
    var sample = try sample()
    let path = scratch.path("self.zst")
    sample.base = path
    sample.baseBytes["w"] = [UInt8](repeating: 1, count: 16)
    try scratch.write("self.zst", sample.packed().bytes)
    let error = #expect(throws: PeftoolError.self) { try unpacked(PackedFile(opening: path)) }
    #expect(error?.reason.contains("is made of differences to another base itself") == true)
  }

  @Test func aBaseThatIsNotThere() throws {
    var sample = try sample()
    sample.base = scratch.path("nowhere/base")
    sample.baseBytes["w"] = [UInt8](repeating: 1, count: 16)
    let path = try scratch.write("x.zst", sample.packed().bytes)
    let error = #expect(throws: PeftoolError.self) { try unpacked(PackedFile(opening: path)) }
    #expect(error?.kind == .io)
    #expect(error?.reason.contains("convert --delta-from BASE says where it is") == true)
  }
}
