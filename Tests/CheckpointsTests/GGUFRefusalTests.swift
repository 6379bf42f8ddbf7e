import Checkpoints
import Files
import Fixtures
import Testing

/// A file is refused for just this reason.
private func assertRejects(
  _ file: GGUFBytes, _ reason: String, at offset: Int?, tensor: String? = nil,
  kind: PeftoolError.Kind = .damaged, sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(
    throws: PeftoolError(kind, reason, offset: offset, tensor: tensor),
    sourceLocation: sourceLocation
  ) { try file.header() }
}

/// A file with a pair of this key, type and value.
private func file(_ key: String, _ type: UInt32, _ value: [UInt8]) -> GGUFBytes {
  var file = GGUFBytes()
  file.add(key, type, value)
  return file
}

/// A file of 64 bytes of data with this tensor.
private func file(
  tensor name: String, _ dimensions: [UInt64], type: UInt32 = 0, at offset: UInt64 = 0
) -> GGUFBytes {
  var file = GGUFBytes()
  file.add(tensor: name, dimensions, type: type, at: offset)
  file.data = Array(repeating: 0, count: 64)
  return file
}

private let huge = GGUFBytes.little(UInt64.max)

/// One test a rule; `Formats/gguf.md` lists them.
@Suite struct GGUFRefusalTests {
  // MARK: The first bytes

  @Test func anotherMark() {
    #expect(throws: PeftoolError(.damaged, "does not begin with \"GGUF\"", offset: 0)) {
      try GGUFHeader(parsing: Array("GGML".utf8), fileByteCount: 4)
    }
  }

  @Test(arguments: [0, 1, 4, 0xFFFF] as [UInt32]) func anotherVersion(version: UInt32) {
    var file = GGUFBytes()
    file.version = version
    assertRejects(
      file, "version \(version) of GGUF, expected 2 or 3", at: 4, kind: .unsupported)
  }

  @Test func aBigEndianFile() {
    var file = GGUFBytes()
    file.version = 0x0300_0000
    assertRejects(
      file, "is for big-endian machines, expected little-endian numbers", at: 4,
      kind: .unsupported)
  }

  @Test(arguments: 4..<24) func aHeadThatEndsEarly(byteCount: Int) {
    #expect(throws: PeftoolError.self) {
      try GGUFHeader(parsing: Array(GGUFBytes().head.prefix(byteCount)), fileByteCount: byteCount)
    }
  }

  // CVE-2024-21836.
  @Test(arguments: [2, 1 << 61, .max] as [UInt64]) func moreTensorsThanThereIsRoom(count: UInt64) {
    var file = GGUFBytes()
    file.tensorCount = count
    assertRejects(
      file, "\(count) tensors need at least 24 bytes each, the file has 16 more", at: 8)
  }

  // CVE-2024-23605.
  @Test(arguments: [2, 1 << 61, .max] as [UInt64]) func morePairsThanThereIsRoom(count: UInt64) {
    var file = GGUFBytes()
    file.pairCount = count
    assertRejects(
      file, "\(count) pairs of metadata need at least 14 bytes each, the file has 8 more", at: 16)
  }

  @Test func moreThanPeftoolTakes() {
    var file = GGUFBytes()
    file.data = Array(repeating: 0, count: 5_000_000)
    file.tensorCount = 200_001
    assertRejects(file, "200001 tensors, expected at most 200000", at: 8, kind: .unsupported)
    file.tensorCount = nil
    file.pairCount = 50_001
    assertRejects(
      file, "50001 pairs of metadata, expected at most 50000", at: 16, kind: .unsupported)
  }

  // MARK: Metadata

  @Test func anEmptyKey() {
    assertRejects(file("", 0, [1, 0]), "an empty key", at: 24)
  }

  @Test func aKeyTwice() {
    var file = file("a", 0, [1])
    file.add("a", 4, GGUFBytes.little(UInt32(1)))
    assertRejects(file, "key \"a\" stands twice", at: 38)
  }

  @Test func aKeyThatIsNoUTF8() {
    var bytes = file("ab", 0, [1]).bytes
    bytes[32] = 0xFF
    #expect(
      throws: PeftoolError(.damaged, "key \"\u{FFFD}b\" is no UTF-8", offset: 24)
    ) { try GGUFHeader(parsing: bytes, fileByteCount: bytes.count) }
  }

  // CVE-2024-23496: the length plus one is zero.
  @Test func aKeyLongerThanTheFile() {
    var file = GGUFBytes()
    file.pairCount = 1
    file.data = huge + Array(repeating: 0, count: 32)
    #expect(
      throws: PeftoolError(
        .damaged,
        "18446744073709551615 bytes of a key need at least 1 bytes each, the file has 32 more",
        offset: 24)
    ) { try GGUFHeader(parsing: file.head + file.data, fileByteCount: 64) }
  }

  @Test(arguments: [13, 0xFFFF_FFFF] as [UInt32]) func aValueOfAnUnknownType(type: UInt32) {
    assertRejects(
      file("a", type, [0]), "\"a\" has a value of type \(type), expected 0 to 12", at: 33)
  }

  // CVE-2024-21825.
  @Test func aStringLongerThanTheFile() {
    assertRejects(
      file("a", 8, huge),
      "18446744073709551615 bytes of a string need at least 1 bytes each, "
        + "the file has 19 more", at: 37)
  }

  // CVE-2024-21825.
  @Test(arguments: [(0, 1), (4, 4), (8, 8), (12, 8)] as [(UInt32, Int)])
  func anArrayLongerThanTheFile(type: UInt32, width: Int) {
    assertRejects(
      file("a", 9, GGUFBytes.little(type) + huge),
      "18446744073709551615 elements need at least \(width) bytes each, the file has 15 more",
      at: 41)
  }

  @Test func anArrayOfArrays() {
    assertRejects(
      file("a", 9, GGUFBytes.array(9, [GGUFBytes.array(0, [[1]])])), "\"a\" has an array of arrays",
      at: 37)
  }

  @Test func aStringInAnArrayLongerThanTheFile() {
    assertRejects(
      file("a", 9, GGUFBytes.array(8, [huge])),
      "18446744073709551615 bytes of a string need at least 1 bytes each, the file has 7 more",
      at: 49)
  }

  @Test func aBooleanThatIsNone() {
    assertRejects(file("a", 7, [2]), "\"a\" has 2 for a boolean, expected 0 or 1", at: 37)
    assertRejects(
      file("a", 9, GGUFBytes.array(7, [[1], [0], [255]])),
      "\"a\" has 255 for a boolean, expected 0 or 1", at: 51)
  }

  @Test func anAlignmentOfAnotherType() {
    assertRejects(
      file("general.alignment", 10, GGUFBytes.little(UInt64(32))),
      "general.alignment is of type u64, expected u32", at: 49)
  }

  @Test(arguments: [0, 3, 33, 0xFFFF_FFFF] as [UInt32])
  func anAlignmentThatIsNoPowerOfTwo(alignment: UInt32) {
    assertRejects(
      file("general.alignment", 4, GGUFBytes.little(alignment)),
      "general.alignment is \(alignment), expected a power of two", at: nil)
  }

  // MARK: Tensors

  @Test func aNameOfMoreThan63Bytes() {
    let name = String(repeating: "n", count: 64)
    #expect((try? file(tensor: String(repeating: "n", count: 63), [1]).header()) != nil)
    assertRejects(
      file(tensor: name, [1]), "a name of 64 bytes, expected at most 63", at: 24, tensor: name)
  }

  @Test func aNameTwice() {
    var file = file(tensor: "a", [8])
    file.add(tensor: "a", [8], at: 32)
    assertRejects(file, "stands twice in the head", at: 57, tensor: "a")
  }

  @Test func aNameThatIsNoUTF8() {
    var bytes = file(tensor: "a", [1]).bytes
    bytes[32] = 0xFF
    #expect(
      throws: PeftoolError(.damaged, "its name is no UTF-8", offset: 24, tensor: "\u{FFFD}")
    ) { try GGUFHeader(parsing: bytes, fileByteCount: bytes.count) }
  }

  @Test(arguments: [5, 9, 0xFFFF_FFFF] as [UInt32]) func moreThanFourDimensions(count: UInt32) {
    var bytes = file(tensor: "a", [1, 1, 1, 1, 1]).bytes
    bytes.replaceSubrange(33..<37, with: GGUFBytes.little(count))
    #expect(
      throws: PeftoolError(
        .damaged, "\(count) dimensions, expected at most 4", offset: 24, tensor: "a")
    ) { try GGUFHeader(parsing: bytes, fileByteCount: bytes.count) }
  }

  @Test func aNegativeDimension() {
    assertRejects(
      file(tensor: "a", [1, .max]), "a dimension of -1, expected 0 to 2^63 - 1", at: 24,
      tensor: "a")
  }

  // CVE-2024-21802, CVE-2026-33298.
  @Test func moreElementsThanCanBeCounted() {
    assertRejects(
      file(tensor: "a", [1 << 32, 1 << 31]), "has 2^63 elements or more", at: 24, tensor: "a")
    assertRejects(
      file(tensor: "a", [1 << 31, 1 << 31]),
      "shape [2147483648, 2147483648] has more elements than can be counted", at: 24, tensor: "a")
    assertRejects(
      file(tensor: "a", [1 << 31, 1 << 31], type: 2),
      "shape [2147483648, 2147483648] has more elements than can be counted", at: 24, tensor: "a")
  }

  @Test(
    arguments: [
      (4, "is Q4_2, which ggml no longer has"),
      (42, "type 42 is none of ggml's that peftool knows"),
      (.max, "type 4294967295 is none of ggml's that peftool knows"),
    ] as [(UInt32, String)])
  func aTypeThatGgmlHasNot(type: UInt32, reason: String) {
    assertRejects(
      file(tensor: "a", [32], type: type), reason, at: 24, tensor: "a", kind: .unsupported)
  }

  @Test func aRowThatEndsInsideABlock() {
    assertRejects(
      file(tensor: "a", [33, 2], type: 2), "Q4_0 of shape [2, 33] ends inside a block of 32",
      at: 24, tensor: "a")
  }

  @Test func anOffsetThatLeavesAGap() {
    assertRejects(
      file(tensor: "a", [8], at: 32),
      "its data is at 32, expected 0: no tensor has the bytes between", at: 24, tensor: "a")
  }

  @Test(arguments: [0, 31] as [UInt64]) func anOffsetThatOverlaps(offset: UInt64) {
    var file = file(tensor: "a", [8])
    file.add(tensor: "b", [8], at: offset)
    assertRejects(
      file, "its data is at \(offset), expected 32: two tensors overlap", at: 57, tensor: "b")
  }

  // CVE-2026-7482: what is read past the file would be written out.
  @Test func dataPastTheEndOfTheFile() {
    assertRejects(
      file(tensor: "a", [17]), "F32 of shape [17] needs 68 bytes, the file has 64 there", at: 24,
      tensor: "a")
  }

  @Test func dataPastTheEndByPadding() {
    var file = file("general.alignment", 4, GGUFBytes.little(UInt32(1) << 31))
    file.add(tensor: "a", [1], at: 0)
    file.data = [0, 0, 0, 0]
    assertRejects(
      file, "F32 of shape [1] needs 4 bytes, the file has 0 there", at: 57, tensor: "a")
  }

  // MARK: Several files

  @Test func aPartUnderAnotherName() throws {
    let scratch = try Scratch()
    let path = try scratch.write("model.gguf", part(0, of: 2).bytes)
    #expect(
      throws: PeftoolError(
        .different,
        "is part 1 of 2 by its head, expected a name that ends in -00001-of-00002.gguf so that "
          + "the others can be found", path: path)
    ) { try GGUFFile(opening: path) }
  }

  @Test(arguments: [2, UInt64(Int.max), .max]) func aPartOfANumberThatIsNone(
    number: UInt64
  ) throws {
    let scratch = try Scratch()
    var file = file(tensor: "t", [1])
    file.add("split.no", 10, GGUFBytes.little(number))
    file.add("split.count", 2, GGUFBytes.little(UInt16(2)))
    let path = try scratch.write("m-00001-of-00002.gguf", file.bytes)
    #expect(
      throws: PeftoolError(.damaged, "split.no is \(number), expected 0 to 1", path: path)
    ) { try GGUFFile(opening: path) }
  }

  @Test func aPartThatIsMissing() throws {
    let scratch = try Scratch()
    let path = try scratch.write("m-00001-of-00002.gguf", part(0, of: 2).bytes)
    #expect(
      throws: PeftoolError(
        .io, "cannot open: No such file or directory; the model has 2 files",
        path: scratch.path("m-00002-of-00002.gguf"))
    ) { try GGUFFile(opening: path) }
  }

  @Test func aPartOfAnotherModel() throws {
    let scratch = try Scratch()
    let path = try scratch.write("m-00001-of-00002.gguf", part(0, of: 2).bytes)
    let other = try scratch.write("m-00002-of-00002.gguf", part(1, of: 3).bytes)
    #expect(
      throws: PeftoolError(.different, "split.count is 3, expected 2", path: other)
    ) { try GGUFFile(opening: path) }
    try scratch.write("m-00002-of-00002.gguf", part(0, of: 2).bytes)
    #expect(
      throws: PeftoolError(.different, "split.no is 0, expected 1", path: other)
    ) { try GGUFFile(opening: path) }
  }

  @Test func aTensorInTwoParts() throws {
    let scratch = try Scratch()
    let path = try scratch.write("m-00001-of-00002.gguf", part(0, of: 2).bytes)
    let other = try scratch.write("m-00002-of-00002.gguf", part(1, of: 2, tensor: "t0").bytes)
    #expect(
      throws: PeftoolError(
        .damaged, "stands in this file and in \(path)", tensor: "t0", path: other)
    ) { try GGUFFile(opening: path) }
  }

  @Test func partsWithTooFewTensors() throws {
    let scratch = try Scratch()
    let path = try scratch.write("m-00001-of-00002.gguf", part(0, of: 2, tensorCount: 3).bytes)
    try scratch.write("m-00002-of-00002.gguf", part(1, of: 2).bytes)
    #expect(
      throws: PeftoolError(
        .different, "split.tensors.count is 3, the files have 2 tensors", path: path)
    ) { try GGUFFile(opening: path) }
  }

  private func part(
    _ number: UInt16, of count: UInt16, tensor: String? = nil, tensorCount: Int32 = 2
  ) -> GGUFBytes {
    var file = file(tensor: tensor ?? "t\(number)", [1])
    file.add("split.no", 2, GGUFBytes.little(number))
    file.add("split.count", 2, GGUFBytes.little(count))
    file.add("split.tensors.count", 5, GGUFBytes.little(tensorCount))
    return file
  }
}
