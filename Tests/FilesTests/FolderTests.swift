import Files
import Fixtures
import Testing

@Suite struct FolderTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  @Test(arguments: [
    ("a", ".", "a"), ("a/b", "a", "b"), ("a/b//", "a", "b"), ("/a", "/", "a"), ("/", "/", "/"),
    ("a//b", "a", "b"), ("./a", ".", "a"), ("../", ".", ".."), ("a/\u{301}b", "a", "\u{301}b"),
    ("", ".", ""), ("///", "/", "/"),
  ])
  func pathsAreCutAtTheLastSlash(path: String, parent: String, name: String) {
    #expect(Folder.parent(of: path).utf8.elementsEqual(parent.utf8))
    #expect(Folder.name(of: path).utf8.elementsEqual(name.utf8))
  }

  @Test func pathsAreJoinedByOneSlash() {
    #expect(Folder.path("a", "b") == "a/b")
    #expect(Folder.path("a/", "b") == "a/b")
    #expect(Folder.path("/", "b") == "/b")
  }

  @Test func namesAreSortedByTheirBytes() throws {
    for name in ["f", "b", "B", "a", ".hidden", "\u{E9}", "e\u{301}"] {
      try scratch.write(name, "")
    }
    let sorted = [".hidden", "B", "a", "b", "e\u{301}", "f", "\u{E9}"]
    #expect(
      try Folder.names(in: scratch.path).map { Array($0.utf8) } == sorted.map { Array($0.utf8) })
  }

  @Test func freeBytesAreThoseOfTheFileSystem() throws {
    #expect(try #require(Folder.freeByteCount(at: scratch.path)) > 0)
    // Nothing can be written there, and so there is no room.
    #expect(Folder.freeByteCount(at: "/proc") == 0)
    #expect(Folder.freeByteCount(at: scratch.path + "/none") == nil)
  }

  @Test func aFolderThatIsNotThereIsAnError() {
    let path = scratch.path("no")
    #expect(
      throws: PeftoolError(
        .io, "cannot read the folder: No such file or directory", path: path)
    ) { try Folder.names(in: path) }
  }

  @Test func linksAreFollowedOrNot() throws {
    try scratch.makeFolder("folder")
    try scratch.write("file", "")
    try scratch.link("to-folder", to: "folder")
    try scratch.link("to-file", to: "file")
    try scratch.link("to-nothing", to: "nothing")
    #expect(Folder.isFolder(scratch.path("folder")))
    #expect(Folder.isFolder(scratch.path("to-folder")))
    #expect(!Folder.isFolder(scratch.path("to-file")))
    #expect(!Folder.isFolder(scratch.path("nothing")))
    #expect(Folder.exists(scratch.path("to-nothing")))
    #expect(!Folder.exists(scratch.path("nothing")))
    #expect(!Folder.exists(scratch.path("file/below")))
    #expect(try FileKind(at: scratch.path("to-file")) == .regular)
    #expect(try FileKind(at: scratch.path("to-file"), followingLinks: false) == .link)
    #expect(try FileKind(at: scratch.path("to-nothing")) == nil)
    #expect(try FileKind(at: "/dev/null") == .other)
  }

  @Test func aNameThatIsTooLongIsAnError() {
    let path = scratch.path(String(repeating: "x", count: 300))
    #expect(throws: PeftoolError(.io, "cannot look at it: File name too long", path: path)) {
      try FileKind(at: path)
    }
  }
}
