import Testing

@testable import Models

@Suite struct StopTextTests {
  /// What comes out piece by piece, and at the end.
  private func pieces(_ stops: [String], _ input: [String]) -> [String] {
    var text = StopText(stops)
    return input.map { text.push($0) } + [text.finish()]
  }

  @Test func withoutStringsAllComesAtOnce() {
    #expect(pieces([], ["a", "b", "é"]) == ["a", "b", "é", ""])
    #expect(pieces([""], ["a"]) == ["a", ""])
  }

  @Test func theTextEndsBeforeTheString() {
    #expect(pieces(["###"], ["a b", " ### c", "d"]) == ["a b", " ", "", ""])
  }

  @Test func aStringMayLieAcrossPieces() {
    #expect(pieces(["User:"], ["Hi.\n", "Us", "er", ": no"]) == ["Hi.\n", "", "", "", ""])
    #expect(pieces(["User:"], ["Hi.\n", "Us", "ing"]) == ["Hi.\n", "", "Using", ""])
  }

  @Test func whatIsHeldBackComesAtTheEnd() {
    #expect(pieces(["User:"], ["a U"]) == ["a ", "U"])
  }

  @Test func aBeginningWithinABeginningIsFound() {
    #expect(pieces(["aab"], ["aa", "a", "b"]) == ["", "a", "", ""])
    #expect(pieces(["\n\n"], ["x\n", "y\n", "\nz"]) == ["x", "\ny", "", ""])
  }

  @Test func theFirstOfSeveralCounts() {
    var text = StopText(["late", "early"])
    #expect(text.push("an early late one") == "an ")
    #expect(text.stop == "early")
  }

  @Test func charactersAreNeverCut() {
    // Both end with the same byte.
    #expect(pieces(["é"], ["aĩ", "x"]) == ["aĩ", "x", ""])
    #expect(pieces(["日本"], ["日", "月"]) == ["", "日月", ""])
  }

  /// All ways of cutting a text give the same.
  @Test func theCutsDoNotMatter() {
    let text = "one\nUser: two\nUse three ###end"
    for stops in [["User:"], ["###"], ["\nUse ", "#end"], ["x"]] {
      var expected: String?
      for mask in 0..<(1 << 10) {
        var parts: [String] = [""]
        for (place, character) in text.enumerated() {
          if mask >> (place % 10) & 1 == 1 { parts.append("") }
          parts[parts.count - 1].append(character)
        }
        let joined = pieces(stops, parts).joined()
        expected = expected ?? joined
        #expect(joined == expected)
      }
    }
  }
}
