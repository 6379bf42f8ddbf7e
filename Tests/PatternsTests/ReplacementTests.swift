import Files
import Patterns
import Testing

/// As Python's `re.sub` has it.
@Suite struct ReplacementTests {
  @Test(
    arguments: [
      ("b", "X", "abcb", "aXcX"), ("^a", "", "aab", "ab"),
      ("(a)(b)?", #"<\2\1>"#, "aba", "<ba><a>"),
      ("x*", "-", "axb", "-a--b-"), ("é", "e", "été", "ete"), ("", ".", "éa", ".é.a."),
      (#"\d+"#, #"[\g<0>]"#, "h.12.x3", "h.[12].x[3]"), ("a", #"\\"#, "ba", #"b\"#),
      ("nothing", "x", "abc", "abc"), ("(?=b)", "_", "ab", "a_b"), ("$", "!", "a", "a!"),
    ])
  func matchesAreReplaced(
    pattern: String, template: String, text: String, expected: String
  ) throws {
    let replaced = try RegularExpression(pattern).replacing(
      in: text, with: .init(template))
    #expect(replaced == expected)
  }

  @Test func aGroupThatIsNotThere() throws {
    let expression = try RegularExpression("(a)")
    #expect(throws: PeftoolError(.unsupported, "'(a)' has no group 2")) {
      try expression.replacing(in: "ba", with: .init(#"\2"#))
    }
  }

  @Test(arguments: [#"\"#, #"\0"#, #"a\n"#, #"\g<1>"#])
  func templatesThatMeanNothing(template: String) {
    #expect(throws: PeftoolError.self) { try RegularExpression.Template(template) }
  }

  @Test func aMatchWithoutEndIsCut() throws {
    let expression = try RegularExpression("(a+)+$")
    #expect(
      throws: PeftoolError(.unsupported, "matching '(a+)+$' takes too many steps")
    ) {
      try expression.replacing(in: String(repeating: "a", count: 40) + "b", with: .init("x"))
    }
  }
}
