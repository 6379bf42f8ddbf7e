import Files
import Patterns
import Testing

@Suite struct GlobTests {
  @Test(arguments: [
    ("*", ""), ("*", "a.b.c"), ("a*c", "abbc"), ("a*c", "ac"), ("*.weight", "x.y.weight"),
    ("*b*b*", "abcb"), ("a?c", "a√c"), ("[abc]x", "bx"), ("[a-c]x", "cx"), ("[!a-c]x", "dx"),
    ("[]x]", "]"), ("[a-]", "-"), ("{q,v}_proj", "v_proj"), ("{0-21}", "0"), ("{0-21}", "21"),
    ("x.{3,5-7}.y", "x.3.y"), ("x.{3,5-7}.y", "x.6.y"), ("\\*", "*"), ("a\\{b", "a{b"),
    ("{a\\,b}", "a,b"), ("{ab,a}b", "ab"),
  ])
  func matches(pattern: String, name: String) throws {
    #expect(try Glob(pattern).matches(name))
  }

  @Test(arguments: [
    ("a", "ab"), ("a", "A"), ("?", ""), ("a*c", "ab"), ("[abc]", "d"), ("[!abc]", "a"),
    ("{0-21}", "22"), ("{0-21}", "007"), ("{0-21}", ""), ("{0-21}", "-1"), ("{1-2}x", "12x"),
    ("{q,v}", "k"), ("\\*", "a"), ("a.c", "abc"),
  ])
  func matchesNot(pattern: String, name: String) throws {
    #expect(try !Glob(pattern).matches(name))
  }

  /// Trying every way to share a name out between many `*` would take years.
  @Test func manyStarsTakeNoLonger() throws {
    let pattern = String(repeating: "*a", count: 40)
    let name = String(repeating: "a", count: 200)
    #expect(try Glob(pattern).matches(name))
    #expect(try !Glob(pattern + "*b").matches(name))
  }

  @Test(arguments: [
    ("", "the pattern is empty"), ("[ab", "'[' is not closed; \\[ stands for the character"),
    ("{a,b", "'{' is not closed; \\{ stands for the character"),
    ("a\\", "the pattern ends in \\, expected a character after it"),
  ])
  func refusesWhatIsNoPattern(pattern: String, reason: String) {
    #expect(throws: PeftoolError(.unsupported, reason)) { try Glob(pattern) }
  }
}
