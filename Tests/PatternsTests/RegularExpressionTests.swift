import Files
import Patterns
import Testing

@Suite struct RegularExpressionTests {
  /// What Python's `re.match` says of each.
  @Test(arguments: [
    ("q_proj", "q_proj", true), ("q_proj", "q_proj.x", true), ("q_proj", "x.q_proj", false),
    (".*\\.q_proj", "model.layers.0.q_proj", true), ("a|b", "b", true), ("a$", "ab", false),
    ("a$", "a", true), ("a$", "a\n", true), ("a\\Z", "a\n", false), ("^a", "a", true),
    ("(?:.*\\.)?(\\d+)\\.x$", "layers.12.x", true), ("b^a", "ba", false),
    ("", "", true), ("", "a", true), ("a*", "", true), ("a", "", false), (".", "", false),
    (".", "\n", false), ("(?s).", "\n", true), ("(?i)Q", "q", true), ("x(?=y)", "xy", true),
    ("(?P<n>a)(?P=n)", "aa", true), ("(?P<n>a)(?P=n)", "ab", false), ("(a)\\1", "aa", true),
    ("[[]", "[", true), ("\\w+$", "é", true), ("\\d$", "٣", true), ("a{,2}$", "aa", true),
    ("a{2,3}$", "aaaa", false), ("(?!x)a", "a", true), ("(?<!x)a", "a", true),
    ("é", "e\u{301}", false),
    ("a.c", "a\u{1F600}c", true), ("\\.", "x", false), ("[^/]*$", "a.b", true),
    ("(?m)a$", "a\nb", true),
  ])
  func itMatchesAsPythonDoes(pattern: String, text: String, isMatch: Bool) throws {
    #expect(try RegularExpression(pattern).matchesStart(of: text) == isMatch)
  }

  @Test(arguments: ["(", "[a", "*", "a**b(", "(?P<n>a", "\\", "(?<", "a{2,1}x(", "[z-a]"])
  func whatIsNoPatternIsRefused(pattern: String) {
    #expect(throws: PeftoolError(.damaged, "'\(pattern)' is no regular expression")) {
      try RegularExpression(pattern)
    }
  }

  @Test func aLongPatternIsRefused() throws {
    _ = try RegularExpression(String(repeating: "a", count: 4096))
    #expect(
      throws: PeftoolError(
        .damaged, "a pattern of 4097 bytes, at most 4096 are taken")
    ) { try RegularExpression(String(repeating: "a", count: 4097)) }
  }

  @Test func aDeepPatternIsRefused() {
    let pattern = String(repeating: "(", count: 500) + "a" + String(repeating: ")", count: 500)
    #expect(throws: PeftoolError.self) { try RegularExpression(pattern) }
  }

  @Test(arguments: ["(a*)*b", "(a+)+$", "(a|aa)+$", "(.*)*(.*)*x"])
  func aMatchWithoutAnEndIsGivenUp(pattern: String) throws {
    let expression = try RegularExpression(pattern)
    #expect(throws: PeftoolError(.unsupported, "matching '\(pattern)' takes too many steps")) {
      try expression.matchesStart(of: String(repeating: "a", count: 60) + "!")
    }
  }

  @Test func textWithNULsIsMatchedWhole() throws {
    #expect(try RegularExpression("a.b$").matchesStart(of: "a\u{0}b"))
    #expect(try !RegularExpression("a$").matchesStart(of: "a\u{0}b"))
  }
}
