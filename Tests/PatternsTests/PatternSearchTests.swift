import Files
import Patterns
import Testing

@Suite struct PatternSearchTests {
  /// All matches of a pattern in a text, none empty, from left to right.
  private func matches(
    _ pattern: String, _ text: String, spareStepCount: Int = 10_000_000, spareSeconds: Int = 5
  ) throws -> [Range<Int>] {
    let bytes = Array(text.utf8)
    let expression = try RegularExpression(pattern, syntax: .oniguruma)
    var search = try PatternSearch(
      textByteCount: bytes.count, spareStepCount: spareStepCount, spareSeconds: spareSeconds)
    var found: [Range<Int>] = []
    while let match = try search.firstMatch(
      of: expression, in: bytes.span, from: found.last?.upperBound ?? 0), !match.isEmpty
    {
      found.append(match)
    }
    return found
  }

  @Test(arguments: [
    (#"\p{L}+"#, "ab, é1", [0..<2, 4..<6]), (#"(?i:'s)"#, "'S's", [0..<2, 2..<4]),
    ("b", "aa", []), (#"\s+(?!\S)"#, "a   b", [1..<3]), (#"(?<=a)b"#, "bab", [2..<3]),
    ("a", "", []), (#"\h"#, "xf", [1..<2]),
  ])
  func matchesAreThoseOfOniguruma(
    pattern: String, text: String, expected: [Range<Int>]
  ) throws {
    #expect(try matches(pattern, text) == expected)
  }

  @Test(.timeLimit(.minutes(5)))
  func aLongRunIsMatched() throws {
    let text = String(repeating: " ", count: 1_000_000) + "x"
    #expect(try matches(#"\s+(?!\S)|\s+"#, text) == [0..<999_999, 999_999..<1_000_000])
  }

  @Test(.timeLimit(.minutes(5)), arguments: ["(a+)+$", "(a|aa)+$", "(a|a)*!$"])
  func aSearchWithoutAnEndIsGivenUp(pattern: String) {
    #expect(throws: PeftoolError(.unsupported, "matching '\(pattern)' takes too many steps")) {
      try matches(pattern, String(repeating: "a", count: 200) + "!b")
    }
  }

  @Test func whatWasDoneInVainIsChargedToTheText() throws {
    // Each search takes some thousand steps; so many of them the text does not pay for.
    let text = String(repeating: "a", count: 3000) + "b"
    #expect(try matches("(?:a{1,3000}?b|a)", text).count == 1)
    #expect(throws: PeftoolError.self) {
      try matches("(?:a{1,3000}?c|a)(?=[a-c])", text + "c", spareStepCount: 0)
    }
  }

  @Test(.timeLimit(.minutes(5)))
  func aRunThatNeedsTooMuchMemoryIsGivenUp() {
    let text = String(repeating: " ", count: 9_000_000) + "x"
    #expect(throws: PeftoolError(.unsupported, #"matching '\s+(?!\S)' takes too many steps"#)) {
      try matches(#"\s+(?!\S)"#, text)
    }
  }

  /// Of these Oniguruma counts no steps: one finds a match at each place, the other none at all.
  @Test(.timeLimit(.minutes(5)), arguments: ["a(?=(?>[^c]*)c)", "a(?>[^c]*)d"])
  func aSearchThatReadsAllOfTheTextAtEachPlaceIsGivenUp(pattern: String) {
    let text = String(repeating: "a", count: 100_000) + "c"
    #expect(throws: PeftoolError(.unsupported, "matching '\(pattern)' takes too long")) {
      try matches(pattern, text, spareSeconds: 0)
    }
  }

  /// The time is looked at after some hundred places, each at a character.
  @Test func aMatchFarBehindIsFound() throws {
    for count in [127, 128, 129, 255, 256, 257, 1000] {
      let text = String(repeating: "é", count: count) + "b"
      #expect(try matches("(?<=é)b", text) == [2 * count..<2 * count + 1])
      #expect(try matches("é?b$", text) == [2 * count - 2..<2 * count + 1])
      #expect(try matches("c", text) == [])
    }
  }
}
