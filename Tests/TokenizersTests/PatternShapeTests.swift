import Testing

@testable import Tokenizers

@Suite struct PatternShapeTests {
  @Test(arguments: [
    #"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#,
    #"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s*[\r\n]+|\s+(?!\S)|\s+"#,
    #"\d{1,3}(?=(?:\d{3})*\b)"#, #"(?:(?!\p{Lu})\w)+(?<=a|b{2,9})"#, "(?<![^(]a)[*]+",
    #"(?:(?=a\*)a)+"#, "(a(b)*)*", "(?:(?=a{64})a)+", "(?:(?=a?)a)+",
  ])
  func ordinaryOnesAreTaken(pattern: String) {
    #expect(PatternShape.unboundedPart(of: pattern) == nil)
    #expect(throws: Never.self) { try TextPattern(expression: pattern) }
  }

  @Test(arguments: [
    "(?:a(?=[^c]*c))*", "(?:a(?=b+))+", "(?:(?<!a{2,})b){3}", "(?:a(?!(?:b|c)*d))+?",
    "((?:(?=(?:bc){1,65})a)x)*", "(?:(?i:(?=a*))b?)*", #"(?:[(]a(?=\p{L}*))+"#, #"(?:\(a(?=b*))+"#,
  ])
  func aLookaroundWithoutAnEndIsNotRepeated(pattern: String) {
    #expect(
      PatternShape.unboundedPart(of: pattern) == "a lookaround without an end that is repeated")
  }

  @Test(arguments: [
    (#"\Ga"#, #"\G"#), (#"(?<x>a|b\g<x>)"#, #"\g"#), (#"\X+"#, #"\X"#), (#"a\y"#, #"\y"#),
    (#"a\Y"#, #"\Y"#), ("(?=a)(?#()", "(?#"), ("(?=a)(?~b)", "(?~"), ("(?=a)(*FAIL)", "(*"),
    ("(?=a)(?ix: #)", "the option x"), ("(?=a)[]b]", "a class that begins with ]"),
    ("(?=a)[^]b]", "a class that begins with ]"),
  ])
  func whatHasNoBoundIsNamed(pattern: String, part: String) {
    #expect(PatternShape.unboundedPart(of: pattern) == part)
  }

  @Test func aPatternWithoutABoundIsRefused() {
    let split = #"{"type": "Replace", "pattern": {"Regex": "(?:a(?=[^c]*c))*"}, "content": ""}"#
    #expect(
      Tree().setting("normalizer", split).refusal()
        == "normalizer.pattern: '(?:a(?=[^c]*c))*' has a lookaround without an end that is repeated, "
        + "of which the time cannot be bounded")
  }
}
