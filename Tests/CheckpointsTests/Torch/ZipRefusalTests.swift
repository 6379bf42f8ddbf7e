import Checkpoints
import Files
import Fixtures
import Tensors
import Testing

private let whole = pickle(Op.entry("a", Op.tensor()))

@Suite struct ZipRefusalTests {
  private func zip(_ change: (inout Zip) -> Void) -> [UInt8] {
    var zip = Zip(whole)
    change(&zip)
    return zip.bytes
  }

  private func disagreement(_ what: String) -> String {
    "the zip directory and the local header disagree about 'm/data/0': \(what)"
  }

  @Test func theUnchangedFileIsTaken() throws {
    #expect(try torchFile(zip { _ in }).tensors.map(\.name) == ["a"])
  }

  @Test func twoPicklesAreRefused() throws {
    try assertRejects(
      zip { $0.entries.append($0.entries[0]) }, .damaged, "the zip entry 'm/data.pkl' stands twice")
  }

  /// Loaders that read by the directory and those that go from entry to entry would see two files.
  @Test func aLocalHeaderWithAnotherNameIsRefused() throws {
    try assertRejects(
      zip { $0.entries[2].localName = "m/data/1" }, .damaged,
      disagreement("the local name is 'm/data/1'"))
  }

  @Test func otherLocalSizesAreRefused() throws {
    try assertRejects(
      zip { $0.entries[2].localSize = 8 }, .damaged,
      disagreement("other sizes or another checksum"))
    try assertRejects(
      zip { $0.entries[2].localMethod = 8 }, .damaged,
      disagreement("the local header has it compressed"))
  }

  /// The directory leads to another record: torch 2.13 loads the wrong weights.
  @Test func aDirectoryThatPointsAtAnotherRecordIsRefused() throws {
    let start = 30 + "m/data.pkl".utf8.count + whole.count
    try assertRejects(
      zip { $0.entries[2].offset = start }, .damaged,
      "the zip entry 'm/data/0' begins at byte \(start), expected "
        + "\(start + 30 + "m/byteorder".utf8.count + 6)")
  }

  @Test func bytesBetweenEntriesAreRefused() throws {
    let error = try refusal(of: zip { $0.entries[0].padding = [0] })
    #expect(error?.reason.hasPrefix("the zip entry 'm/byteorder' begins at byte ") == true)
    let more = try refusal(of: zip { $0.gapBeforeDirectory = [0, 0] })
    #expect(more?.reason.hasPrefix("the zip directory begins at byte ") == true)
    let before = try refusal(of: Array("PK".utf8) + zip { _ in })
    #expect(before?.kind == .damaged)
  }

  @Test func bytesBehindTheDirectoryAreRefused() throws {
    for bytes in [zip { _ in } + [0], zip { $0.comment = Array("hello".utf8) }] {
      try assertRejects(
        bytes, .damaged, "does not end with a zip directory: cut short, or bytes were added")
    }
  }

  @Test func aCompressedEntryIsRefused() throws {
    try assertRejects(
      zip { $0.entries[2].method = 8 }, .unsupported,
      "the zip entry 'm/data/0' is compressed (method 8), torch.save stores plainly")
  }

  @Test(arguments: [(1, "encrypted"), (0x40, "marked with flags 0x40")] as [(UInt16, String)])
  func otherFlagsAreRefused(flags: UInt16, words: String) throws {
    try assertRejects(
      zip { $0.entries[2].flags = flags }, .unsupported,
      "the zip entry 'm/data/0' is \(words), torch.save stores plainly")
  }

  @Test func sizesPastTheFileAreRefused() throws {
    let error = try refusal(of: zip { $0.entries[2].directorySize = 1 << 30 })
    #expect(error?.reason.contains("has 1073741824 bytes stored for 1073741824") == true)
    let wide = try refusal(of: zip { $0.entries[2].directorySize = 0xFFFF_FFFF })
    #expect(wide?.reason == "a zip entry lacks its zip64 sizes")
    let near = try refusal(of: zip { $0.entries[2].directorySize = 100 })
    #expect(near?.reason == disagreement("its 100 bytes reach into the directory"))
  }

  @Test(arguments: [0, 2, 4, 65535])
  func anotherNumberOfEntriesIsRefused(count: Int) throws {
    let error = try refusal(of: zip { $0.count = count })
    #expect(error?.kind == .damaged)
  }

  @Test func aMissingDescriptorIsRefused() throws {
    try assertRejects(
      zip { $0.entries[2].flags = 8 }, .damaged, disagreement("another data descriptor"))
  }

  @Test func entriesAreInOneFolder() throws {
    try assertRejects(
      zip { $0.entries[2].name = "n/data/0" }, .damaged,
      "the zip entry 'n/data/0' is not in 'm'")
    try assertRejects(
      zip { $0.entries[0].name = "data.pkl" }, .unsupported,
      "is a zip archive, but not one of torch.save")
    try assertRejects(
      zip { $0.entries[0].name = "m/other.pkl" }, .unsupported,
      "is a zip archive without m/data.pkl")
  }

  @Test func torchScriptIsRefused() throws {
    try assertRejects(
      zip { $0.entries.append(.init(name: "m/constants.pkl", bytes: [])) }, .unsupported,
      "is a TorchScript archive, which holds code; save its state_dict() instead")
  }

  @Test func anotherByteOrderIsRefused() throws {
    try assertRejects(
      zip { $0.entries[1].bytes = Array("big".utf8) }, .unsupported,
      "byteorder is 'big', expected 'little'")
  }

  @Test func aCutFileIsRefused() throws {
    let file = try Sample.bytes("torch/zip.pt")
    for count in stride(from: 0, to: file.count, by: 23) {
      _ = try refusal(of: Array(file[..<count]))
    }
    _ = try refusal(of: Array(file.dropLast()))
  }

  /// One byte changed anywhere: refused, or tensors that lie within the file.
  @Test(arguments: ["torch/zip.pt", "torch/stream.pt", "torch/wrapped.pth"])
  func changedBytesNeverLeadOutOfTheFile(name: String) throws {
    let file = try Sample.bytes(name)
    let scratch = try Scratch()
    var random = SplitMix64(seed: file.count)
    for place in stride(from: 0, to: file.count, by: 11) {
      var changed = file
      changed[place] ^= UInt8.random(in: 1...255, using: &random)
      let path = try scratch.write("model.pt", changed)
      do {
        for tensor in try TorchFile(opening: path).tensors {
          #expect(tensor.byteRange.lowerBound >= 0 && tensor.byteRange.upperBound <= file.count)
        }
      } catch {
        #expect(error.path == path)
      }
    }
  }
}

@Suite struct StreamRefusalTests {
  @Test func theUnchangedFileIsTaken() throws {
    #expect(try torchFile(stream(streamed())).tensors.map(\.name) == ["a"])
  }

  /// A storage has a sixth part in this form: a view, or None.
  private func streamed(view: [UInt8] = Op.none, count: Int = 4) -> [UInt8] {
    pickle(
      Op.entry(
        "a",
        Op.tensor(
          Op.tuple(
            Op.string("storage"), Op.global("torch", "FloatStorage"), Op.string("0"),
            Op.string("cpu"), Op.number(count), view) + Op.persistentID)))
  }

  @Test func anotherPickleIsNoFileOfTorch() throws {
    try assertRejects(
      whole, .unsupported,
      "is a Python pickle, but none of torch.save: it begins with another number")
  }

  @Test func bigEndianIsRefused() throws {
    let system = [0x80, 2] + Op.entry("little_endian", Op.no) + Array(".".utf8)
    try assertRejects(
      stream(streamed(), system: system), .unsupported,
      "was saved with its bytes in big-endian order")
  }

  @Test func anAttackInFrontOfTheTensorsIsRefused() throws {
    let attack = pickle(Op.global("os", "system"), Op.tuple(Op.string("id")), Op.reduce)
    try assertRejects(
      stream(streamed(), system: attack), .unsupported,
      "would call os.system: of a pickle only tensors are read, and nothing in it is run")
  }

  @Test func storagesAreListedOnce() throws {
    try assertRejects(
      stream(streamed(), keys: []), .damaged, "24 bytes after the last storage")
    try assertRejects(
      stream(streamed(), keys: [], storages: []), .damaged, "storage '0' is not in the file")
    for keys in [["0", "0"], ["1"]] {
      try assertRejects(
        stream(streamed(), keys: keys), .damaged,
        "storage '\(keys.last ?? "")' is listed, but used by no tensor or listed twice")
    }
  }

  @Test(arguments: [-1, 0, 3, 5, 1 << 62])
  func aStorageHasTheCountThatThePickleGivesIt(count: Int) throws {
    try assertRejects(
      stream(streamed(), storages: [(count, [UInt8](repeating: 0, count: 16))]), .damaged,
      "storage '0' has \(UInt64(bitPattern: Int64(count))) elements, the pickle gives it 4")
  }

  @Test func aShortStorageIsRefused() throws {
    try assertRejects(
      stream(streamed(), storages: [(4, [UInt8](repeating: 0, count: 15))]), .damaged,
      "storage '0' needs 16 bytes, 15 are left")
    try assertRejects(
      stream(streamed(), storages: []), .damaged, "the file ends before storage '0'")
    try assertRejects(
      stream(streamed()) + [0], .damaged, "1 bytes after the last storage")
  }

  @Test func aViewOfAStorageIsRefused() throws {
    try assertRejects(
      stream(streamed(view: Op.tuple(Op.string("1"), Op.number(0), Op.number(2)))), .unsupported,
      "storage 0 is a view, as torch before 0.4 wrote them; load the file in torch and save it "
        + "again")
  }

  @Test func aModuleWithItsSourceIsRefused() throws {
    try assertRejects(
      stream(
        pickle(
          Op.tuple(Op.string("module"), Op.none, Op.none, Op.string("import os")),
          Op.persistentID)), .unsupported,
      "holds a module with its source text; save its state_dict() instead")
  }

  @Test func aCutFileIsRefused() throws {
    let file = try Sample.bytes("torch/stream.pt")
    for count in stride(from: 0, to: file.count, by: 23) {
      _ = try refusal(of: Array(file[..<count]))
    }
    _ = try refusal(of: Array(file.dropLast()))
  }
}
