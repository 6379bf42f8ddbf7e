import Files
import Fixtures
import Foundation
import Testing

@Suite struct StagedOutputTests {
  let scratch: Scratch
  let path: String

  init() throws {
    scratch = try Scratch()
    path = scratch.path("out")
  }

  private func commitFile(_ content: String, force: Bool = false) throws {
    var output = try StagedOutput(.file, at: path, force: force)
    let file = try output.createFile(byteCount: content.utf8.count)
    try file.write(Array(content.utf8).span.bytes, at: 0)
    try output.commit()
  }

  private func commitFolder(_ content: String, force: Bool = false) throws {
    var output = try StagedOutput(.modelFolder, at: path, force: force)
    for name in ["config.json", "model.safetensors"] {
      let file = try output.createFile(name, byteCount: content.utf8.count)
      try file.write(Array(content.utf8).span.bytes, at: 0)
    }
    try output.commit()
  }

  @Test func aFileIsThereOnlyAfterTheCommit() throws {
    var output = try StagedOutput(.file, at: path, force: false)
    let file = try output.createFile(byteCount: 3)
    #expect(file.path == path)
    let names = try scratch.names()
    #expect(names.count == 1 && names[0].hasPrefix(".out.peftool-") && names[0].utf8.count == 19)
    try file.write(([1, 2, 3] as [UInt8]).span.bytes, at: 0)
    try output.commit()
    #expect(try scratch.names() == ["out"])
    #expect(try scratch.bytes("out") == [1, 2, 3])
  }

  @Test func aFolderIsThereOnlyAfterTheCommit() throws {
    var output = try StagedOutput(.modelFolder, at: path + "/", force: false)
    let file = try output.createFile("a.json", byteCount: 0)
    #expect(file.path == "\(path)/a.json")
    _ = try output.createFile("b", byteCount: 2)
    #expect(try scratch.names().count == 1)
    #expect(try !scratch.names().contains("out"))
    try output.commit()
    #expect(try scratch.names() == ["out"])
    #expect(try scratch.names(in: "out") == ["a.json", "b"])
    #expect(try scratch.bytes("out/b") == [0, 0])
  }

  @Test(arguments: [StagedOutput.Kind.file, .modelFolder])
  func withoutACommitNothingIsLeft(kind: StagedOutput.Kind) throws {
    do {
      var output = try StagedOutput(kind, at: path, force: false)
      _ = try output.createFile(kind == .file ? nil : "a", byteCount: 5)
      #expect(try scratch.names().count == 1)
    }
    #expect(try scratch.names() == [])
  }

  @Test(arguments: [StagedOutput.Kind.file, .modelFolder])
  func whatIsThereIsKeptWithoutForce(kind: StagedOutput.Kind) throws {
    try scratch.write("out", "old")
    #expect(throws: PeftoolError(.io, "exists already; --force replaces it", path: path)) {
      _ = try StagedOutput(kind, at: path, force: false)
    }
    #expect(try scratch.names() == ["out"])
    #expect(try scratch.text("out") == "old")
  }

  @Test func forceReplacesAFile() throws {
    try commitFile("old")
    try commitFile("newer", force: true)
    #expect(try scratch.names() == ["out"])
    #expect(try scratch.text("out") == "newer")
  }

  @Test func forceReplacesAModelFolderWithAllThatIsInIt() throws {
    try commitFolder("old")
    try scratch.write("out/README.md", "old")
    try scratch.link("out/link", to: "/")
    try commitFolder("new", force: true)
    #expect(try scratch.names() == ["out"])
    #expect(try scratch.names(in: "out") == ["config.json", "model.safetensors"])
    #expect(try scratch.text("out/config.json") == "new")
  }

  @Test func forceReplacesAFolderWithANameThatIsNoUTF8() throws {
    try commitFolder("old")
    try scratch.makeFile(named: Array("caf".utf8) + [0xE9], in: "out")
    try scratch.makeFile(named: [0xFF], in: "out")
    try commitFolder("new", force: true)
    #expect(try scratch.names() == ["out"])
    #expect(try scratch.names(in: "out") == ["config.json", "model.safetensors"])
  }

  /// Here folders within each other whose path is longer than the system takes.
  @Test func aLeftoverThatCannotBeRemovedIsInNobodysWay() throws {
    let stale = try scratch.makeFolder(".out.peftool-aaaaaa")
    defer { _ = try? Process.run(URL(fileURLWithPath: "/bin/rm"), arguments: ["-rf", stale]) }
    var folder = open(stale, O_RDONLY | O_DIRECTORY)
    let name = String(repeating: "d", count: 250)
    for _ in 0..<17 {
      try #require(mkdirat(folder, name, 0o700) == 0)
      let next = openat(folder, name, O_RDONLY | O_DIRECTORY)
      close(folder)
      folder = next
    }
    close(folder)
    try commitFile("new")
    #expect(try scratch.text("out") == "new")
  }

  @Test func forceReplacesAnEmptyFolder() throws {
    try scratch.makeFolder("out")
    try commitFolder("new", force: true)
    #expect(try scratch.names(in: "out").count == 2)
  }

  @Test func forceReplacesALinkAndNotWhatItLeadsTo() throws {
    try scratch.write("target", "old")
    try scratch.link("out", to: "target")
    try commitFile("new", force: true)
    #expect(try scratch.names() == ["out", "target"])
    #expect(try scratch.text("target") == "old")
    #expect(try scratch.text("out") == "new")
    #expect(try FileKind(at: path, followingLinks: false) == .regular)
  }

  /// What a folder may hold, and what of it `--force` would delete: of a model's folder, and of an
  /// adapter's.
  @Test(
    arguments: [
      (["thesis.txt"], "thesis.txt", "thesis.txt"),
      (["config.json", "model.safetensors", "README.md"], nil, "a model, model.safetensors"),
      (["config.json"], nil, "config.json"), (["model-q4_0.gguf"], nil, "a model, model-q4_0.gguf"),
      (["pytorch_model.bin"], nil, "a model, pytorch_model.bin"),
      (["adapter_config.json", "README.md"], "an adapter, adapter_config.json", nil),
      (["adapter_model.bin"], "an adapter, adapter_model.bin", nil),
      (["0000100_adapters.safetensors"], "an adapter, 0000100_adapters.safetensors", nil),
      (
        ["adapter_config.json", "model.safetensors"], "an adapter, adapter_config.json",
        "a model, model.safetensors"
      ),
      (["config.json", ".git/config"], "the folder .git", "the folder .git"),
      (
        ["adapter_config.json", "checkpoint-500/adapter_model.safetensors"],
        "the folder checkpoint-500", "the folder checkpoint-500"
      ),
    ] as [([String], String?, String?)])
  func forceReplacesAFolderOnlyByItsLike(
    names: [String], ofModel: String?, ofAdapter: String?
  ) throws {
    for name in names { try scratch.write("out/\(name)", "dear") }
    for (kind, reason) in [
      (StagedOutput.Kind.modelFolder, ofModel), (.adapterFolder, ofAdapter),
    ] {
      guard let reason else {
        _ = try StagedOutput(kind, at: path, force: true)
        continue
      }
      #expect(
        throws: PeftoolError(
          .io,
          "holds \(reason), which --force would delete: choose another output or remove it",
          path: path)
      ) { _ = try StagedOutput(kind, at: path, force: true) }
    }
    for name in names { #expect(try scratch.text("out/\(name)") == "dear") }
  }

  @Test func whatComesIntoTheFolderMeanwhileIsKept() throws {
    try commitFolder("old")
    let output = try StagedOutput(.modelFolder, at: path, force: true)
    try scratch.write("out/checkpoint-500/model.safetensors", "dear")
    var failure: PeftoolError?
    do throws(PeftoolError) {
      try output.commit()
    } catch {
      failure = error
    }
    #expect(failure?.reason.hasPrefix("holds the folder checkpoint-500") == true)
    #expect(try scratch.names() == ["out"])
    #expect(try scratch.text("out/checkpoint-500/model.safetensors") == "dear")
  }

  @Test func forceReplacesLikeWithLike() throws {
    try scratch.makeFolder("out")
    #expect(
      throws: PeftoolError(
        .io, "is no regular file; --force replaces only a file", path: path)
    ) { _ = try StagedOutput(.file, at: path, force: true) }
    try scratch.write("file", "")
    let file = scratch.path("file")
    #expect(
      throws: PeftoolError(
        .io, "is no folder; --force replaces a folder with a folder", path: file)
    ) { _ = try StagedOutput(.modelFolder, at: file, force: true) }
    #expect(try scratch.names() == ["file", "out"])
  }

  @Test func aLinkThatLeadsNowhereIsInTheWay() throws {
    try scratch.link("out", to: "nothing")
    #expect(throws: PeftoolError(.io, "exists already; --force replaces it", path: path)) {
      _ = try StagedOutput(.file, at: path, force: false)
    }
    #expect(
      throws: PeftoolError(
        .io, "is no regular file; --force replaces only a file", path: path)
    ) { _ = try StagedOutput(.file, at: path, force: true) }
    #expect(try scratch.names() == ["out"])
  }

  @Test(arguments: ["model/.", "model/..", "", "/", "model/./"])
  func whatCannotBeRenamedToIsRefused(name: String) throws {
    try scratch.write("model/config.json", "{}")
    let path = name.hasPrefix("model") ? scratch.path(name) : name
    for force in [false, true] {
      #expect(throws: PeftoolError(.io, "is no name for an output", path: path)) {
        _ = try StagedOutput(.modelFolder, at: path, force: force)
      }
    }
    #expect(try scratch.names(in: "model") == ["config.json"])
  }

  @Test func aMissingFolderIsNamed() throws {
    let folder = scratch.path("no")
    #expect(
      throws: PeftoolError(
        .io, "cannot read the folder: No such file or directory", path: folder)
    ) { _ = try StagedOutput(.file, at: folder + "/out", force: false) }
  }

  @Test func whatAppearsMeanwhileIsKeptWithoutForce() throws {
    var output = try StagedOutput(.file, at: path, force: false)
    _ = try output.createFile(byteCount: 3)
    try scratch.write("out", "another's")
    // A value that cannot be copied cannot be committed inside a closure.
    var failure: PeftoolError?
    do throws(PeftoolError) {
      try output.commit()
    } catch {
      failure = error
    }
    #expect(failure == PeftoolError(.io, "exists already; --force replaces it", path: path))
    #expect(try scratch.names() == ["out"])
    #expect(try scratch.text("out") == "another's")
  }

  @Test func whatNobodyHoldsIsSweptAway() throws {
    try scratch.write(".out.peftool-aaaaaa", "killed")
    try scratch.write(".out.peftool-bbbbbb/config.json", "killed")
    try scratch.write(".other.peftool-cccccc", "another output's")
    try scratch.write(".out.peftool", "no temporary")
    let output = try StagedOutput(.file, at: path, force: false)
    let names = try scratch.names()
    #expect(names.count == 3)
    #expect(names.contains(".other.peftool-cccccc") && names.contains(".out.peftool"))
    _ = consume output
    #expect(try scratch.names() == [".other.peftool-cccccc", ".out.peftool"])
  }

  @Test func whatAnotherRunHoldsIsNotSweptAway() throws {
    try scratch.write(".out.peftool-aaaaaa", "alive")
    try scratch.write(".out.peftool-bbbbbb/config.json", "alive")
    // A lock belongs to its opening of the file, so this is as if another process held it.
    let locks = [".out.peftool-aaaaaa", ".out.peftool-bbbbbb"].map {
      open(scratch.path($0), O_RDONLY)
    }
    defer { locks.forEach { close($0) } }
    for lock in locks { #expect(flock(lock, LOCK_EX) == 0) }
    try commitFile("new")
    #expect(
      try scratch.names() == [".out.peftool-aaaaaa", ".out.peftool-bbbbbb", "out"])
    #expect(try scratch.text(".out.peftool-bbbbbb/config.json") == "alive")
  }

  @Test func twoRunsToOneNameDoNotDisturbEachOther() throws {
    var first = try StagedOutput(.modelFolder, at: path, force: true)
    var second = try StagedOutput(.modelFolder, at: path, force: true)
    for text in ["1", "2"] {
      let file =
        try text == "1"
        ? first.createFile("config.json", byteCount: 1)
        : second.createFile("config.json", byteCount: 1)
      try file.write(Array(text.utf8).span.bytes, at: 0)
    }
    try first.commit()
    #expect(try scratch.text("out/config.json") == "1")
    try second.commit()
    #expect(try scratch.text("out/config.json") == "2")
    #expect(try scratch.names() == ["out"])
  }

  @Test func aFileThatCannotBeCreatedLeavesNothing() throws {
    do {
      var output = try StagedOutput(.modelFolder, at: path, force: false)
      #expect(
        throws: PeftoolError(
          .io, "cannot create: No such file or directory", path: "\(path)/no/file")
      ) { _ = try output.createFile("no/file", byteCount: 1) }
      _ = try output.createFile("file", byteCount: 1)
      #expect(
        throws: PeftoolError(
          .io, "cannot create: File exists", path: "\(path)/file")
      ) { _ = try output.createFile("file", byteCount: 1) }
    }
    #expect(try scratch.names() == [])
  }

  @Test func aSizeThatTheDiskDoesNotHaveIsAnError() throws {
    do {
      var output = try StagedOutput(.file, at: path, force: false)
      let error = #expect(throws: PeftoolError.self) {
        _ = try output.createFile(byteCount: 1 << 60)
      }
      #expect(error?.kind == .io)
      #expect(error?.path == path)
    }
    #expect(try scratch.names() == [])
  }

  @Test func modesFollowTheMask() throws {
    try commitFolder("new")
    let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
    let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("Umask:") })
    let mask = try #require(Int(line.split(separator: "\t")[1], radix: 8))
    for (name, full) in [("out", 0o777), ("out/config.json", 0o666)] {
      let attributes = try FileManager.default.attributesOfItem(atPath: scratch.path(name))
      #expect(attributes[.posixPermissions] as? Int == full & ~mask)
    }
  }
}
