import Files
import Fixtures
import Glibc
import Testing

@Suite struct InputFileTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  @Test func aRangeIsRead() throws {
    let file = try InputFile(opening: scratch.write("a", Array(0..<100)))
    #expect(file.byteCount == 100)
    #expect(try file.bytes(10..<13) == [10, 11, 12])
    #expect(try file.bytes(100..<100) == [])
    #expect(try file.bytes(0..<100) == Array(0..<100))
  }

  @Test func aRangePastTheEndIsRefusedBeforeMemoryIsTaken() throws {
    let path = try scratch.write("a", Array(0..<100))
    let file = try InputFile(opening: path)
    #expect(
      throws: PeftoolError(
        .damaged, "needs 9223372036854775707 bytes, the file has 0", offset: 100, path: path)
    ) { try file.bytes(100..<Int.max) }
    #expect(
      throws: PeftoolError(
        .damaged, "needs 2 bytes, the file has 1", offset: 99, path: path)
    ) { try file.bytes(99..<101) }
  }

  @Test func aFileThatEndsEarlyIsNamed() throws {
    let path = try scratch.write("a", Array(0..<100))
    let file = try InputFile(opening: path)
    truncate(path, 60)
    #expect(
      throws: PeftoolError(
        .damaged, "the file ends here, 40 bytes short; it was changed while it was read",
        offset: 60, path: path)
    ) { try file.bytes(50..<100) }
  }

  @Test func aReadPastTheEndOfAnUnchangedFileDoesNotBlameAnother() throws {
    let path = try scratch.write("a", Array(0..<100))
    let file = try InputFile(opening: path)
    var block = Block(byteCount: 8)
    #expect(
      throws: PeftoolError(
        .damaged, "the file ends here, 4 bytes short", offset: 100, path: path)
    ) {
      var bytes = block.mutableBytes(8)
      try file.read(at: 96, into: &bytes)
    }
  }

  @Test func aFolderIsRefused() throws {
    #expect(
      throws: PeftoolError(
        .unsupported, "is a folder, expected a regular file", path: scratch.path)
    ) { try InputFile(opening: scratch.path) }
  }

  @Test func aFifoIsRefusedAndNotWaitedFor() throws {
    let path = scratch.path("fifo")
    #expect(mkfifo(path, 0o600) == 0)
    #expect(
      throws: PeftoolError(
        .unsupported, "is no regular file, expected a regular file", path: path)
    ) { try InputFile(opening: path) }
  }

  @Test func aDeviceIsRefused() {
    #expect(
      throws: PeftoolError(
        .unsupported, "is no regular file, expected a regular file", path: "/dev/zero")
    ) { try InputFile(opening: "/dev/zero") }
  }

  @Test func aMissingFileIsNamed() {
    let path = scratch.path("no")
    #expect(
      throws: PeftoolError(
        .io, "cannot open: No such file or directory", path: path)
    ) { try InputFile(opening: path) }
  }

  @Test func aNameThatIsNoUTF8IsToldOf() throws {
    try scratch.makeFile(named: [0x63, 0x61, 0x66, 0xE9])
    let names = try Folder.names(in: scratch.path)
    #expect(names == ["caf\u{FFFD}"])
    let path = scratch.path(names[0])
    #expect(
      throws: PeftoolError(
        .io,
        "cannot open: No such file or directory; a name that is no UTF-8 must be changed first",
        path: path)
    ) { try InputFile(opening: path) }
  }

  @Test func anUnchangedFilePasses() throws {
    let file = try InputFile(opening: scratch.write("a", [1, 2, 3]))
    _ = try file.bytes(0..<3)
    try file.verifyUnchanged()
  }

  @Test(arguments: ["shorter", "longer", "written", "touched"])
  func aChangedFileIsSeen(how: String) throws {
    let path = try scratch.write("a", [1, 2, 3])
    let file = try InputFile(opening: path)
    // The clock that stamps files ticks every few milliseconds.
    usleep(20_000)
    let writer = open(path, O_WRONLY)
    defer { close(writer) }
    var byte: UInt8 = 1
    switch how {
    case "shorter": #expect(ftruncate(writer, 2) == 0)
    case "longer": #expect(pwrite(writer, &byte, 1, 3) == 1)
    case "written": #expect(pwrite(writer, &byte, 1, 0) == 1)
    default: #expect(futimens(writer, nil) == 0)
    }
    #expect(
      throws: PeftoolError(
        .different, "changed while it was read; run again when nothing writes to it", path: path)
    ) { try file.verifyUnchanged() }
  }
}

@Suite struct BlockTests {
  @Test func itBeginsAsZerosAndKeepsWhatIsWritten() {
    var block = Block(byteCount: 5)
    #expect(block.byteCount == 5)
    var bytes = block.mutableBytes(3)
    bytes.storeBytes(of: 7, toByteOffset: 2, as: UInt8.self)
    #expect(
      (0..<5).map { block.bytes(5).unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
        == [0, 0, 7, 0, 0])
  }

  @Test func moreThanItHasTraps() async {
    await #expect(processExitsWith: .failure) {
      let block = Block(byteCount: 5)
      _ = block.bytes(6).byteCount
    }
  }
}
