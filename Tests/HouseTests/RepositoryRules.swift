import Foundation
import Testing

/// What may stand at the top level, besides names that begin with a dot.
private let topLevel: Set = [
  "CHANGELOG.md", "CONTRIBUTING.md", "Formats", "LICENSE", "Package.swift", "README.md", "Samples",
  "Sources", "Tests", "man",
]

/// Paths that hold on one machine only.
private var machinePath: Regex<Substring> {
  #/(?:^|[^\w.])/(?:work|root|farm|Users|opt|home/[a-z]+)//#
}

/// Names of types and functions that say nothing.
private var emptyName: Regex<Substring> {
  /(?:class|struct|enum|protocol|actor) \w*(?:Manager|Helper|Util)s?\b|func get[A-Z]/
}

/// Files that are text, by the end of their names; those without one are scripts.
private let textEndings: Set = [
  "", "swift", "c", "h", "inc", "modulemap", "py", "sh", "md", "json", "txt", "1",
]

/// The lines of the repository's text files that match.
private func lines(
  matching pattern: Regex<some Any>, in isIncluded: (String) -> Bool = { _ in true }
) throws -> [String] {
  let files = try Repository.files().filter {
    textEndings.contains(URL(fileURLWithPath: $0).pathExtension) && isIncluded($0)
  }
  return try files.flatMap { path in
    try Repository.text(path).components(separatedBy: "\n").enumerated()
      .filter { $1.contains(pattern) }.map { "\(path):\($0 + 1): \($1)" }
  }
}

@Suite struct RepositoryRules {
  @Test func theTopLevelHoldsOnlyWhatIsAgreed() throws {
    let found = try Repository.topLevel().filter { !$0.hasPrefix(".") }
    #expect(found.filter { !topLevel.contains($0) } == [])
  }

  @Test func noFileNamesAPathOfOneMachine() throws {
    // The rule itself does.
    let found = try lines(matching: machinePath) { !$0.hasPrefix("Tests/HouseTests/") }
    #expect(found == [])
  }

  @Test func namesSayWhatAThingIs() throws {
    let found = try lines(matching: emptyName) { $0.hasPrefix("Sources/") }
    #expect(found == [])
  }

  @Test func codeKeepsToAHundredColumns() throws {
    let found = try lines(matching: #/^.{101}/#) { path in
      ["c", "h", "inc", "py", "sh"].contains(URL(fileURLWithPath: path).pathExtension)
        || path.hasSuffix("/run")
    }
    #expect(found == [])
  }

  @Test func whatBeginsAsAScriptCanBeRun() throws {
    for path in try Repository.files() {
      let full = Repository.root.appendingPathComponent(path)
      guard let file = try? FileHandle(forReadingFrom: full),
        try file.read(upToCount: 2) == Data("#!".utf8)
      else { continue }
      #expect(FileManager.default.isExecutableFile(atPath: full.path), "\(path)")
    }
  }

  @Test func theRulesSeeABreach() {
    #expect("in /home/me/x".contains(machinePath))
    #expect(!"Sources/work/x".contains(machinePath))
    #expect("struct FileHelper {".contains(emptyName))
    #expect("func getName()".contains(emptyName))
    #expect(!"func getting()".contains(emptyName))
  }
}
