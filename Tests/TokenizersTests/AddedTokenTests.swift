import Files
import Testing
import Tokenizers

@Suite struct AddedTokenTests {
  @Test func theLongestFromTheLeftIsFound() throws {
    let tree = Tree().adding(("ba", ""), ("bab", ""), ("abab", ""))
    #expect(try tree.tokens("cbabab") == ["c", "bab", "ab"])
    #expect(try tree.tokens("aabab") == ["a", "abab"])
  }

  @Test func whiteSpaceIsTakenAlong() throws {
    let tree = Tree().adding(("L", "lstrip"), ("R", "rstrip"))
    #expect(try tree.tokens("a \u{3000}L b") == ["a", "L", " ", "b"])
    #expect(try tree.tokens("a R \n b") == ["a", " ", "R", "b"])
    // Space that one token has taken is not taken by the next.
    #expect(try tree.tokens("R  L") == ["R", "L"])
    // Nor is a token found that lies within it and reaches no further.
    let space = Tree().adding(("R", "rstrip"), ("  ", "lstrip"))
    #expect(try space.tokens("aR  b") == ["a", "R", "b"])
  }

  @Test func aTokenOfSpaceWithinWhatAnotherHasTakenStillCounts() throws {
    let tree = Tree().adding(("R", "rstrip"), ("  ", ""))
    #expect(try tree.tokens("aR   b") == ["a", "R", "  ", " ", "b"])
  }

  @Test func aSingleWordHasNoLetterBesideIt() throws {
    let tree = Tree().adding(("W", "single_word"))
    #expect(try tree.tokens("aW") == ["a"])
    #expect(try tree.tokens("a W") == ["a", " ", "W"])
    #expect(try tree.tokens("Wé W") == [" ", "W"])
    #expect(try tree.tokens("W.W") == ["W", "W"])
    #expect(try tree.tokens("W\u{301} \u{301}W _W W9 \u{200D}W") == [" ", " ", " ", " "])
  }

  @Test func normalizedOnesAreFoundInTheNormalizedText() throws {
    let lowercase = #"{"type": "Lowercase"}"#
    let tree = Tree().setting("normalizer", lowercase).adding(("DOG", "normalized"), ("CAT", ""))
    #expect(try tree.tokens("dogDoGcatCATa") == ["DOG", "DOG", "c", "a", "CAT", "a"])
    // As text it is what the normalizer has made of it.
    #expect(try tree.tokenizer().decode([12, 13]) == "dog CAT")
  }

  @Test func specialOnesCanBeLeftOut() throws {
    let tokenizer = try Tree().adding(("S", "special"), ("T", "")).tokenizer()
    #expect(try tokenizer.decode([0, 12, 13]) == "a S T")
    #expect(try tokenizer.decode([0, 12, 13], skippingSpecialTokens: true) == "a T")
    #expect(tokenizer.isSpecial(12) && !tokenizer.isSpecial(13))
  }

  @Test func tokensHaveNumbersAndNames() throws {
    let tokenizer = try Tree().adding(("S", "special"), ("T", "")).tokenizer()
    #expect(tokenizer.vocabularySize == 14)
    #expect(tokenizer.id(of: "T") == 13)
    #expect(tokenizer.id(of: "ab") == 8)
    #expect(tokenizer.id(of: "x") == nil)
    #expect(tokenizer.token(12) == "S")
    #expect(tokenizer.token(8) == "ab")
    #expect(tokenizer.token(14) == nil)
    #expect(tokenizer.token(-1) == nil)
  }

  @Test func aNumberThatIsNotTheOneTheLibraryGivesIsRefused() {
    let tree = Tree().adding(("S", ""))
    #expect(tree.refusal() == nil)
    #expect(
      tree.replacing(#""id": 12"#, #""id": 13"#).refusal()
        == #"added token "S" has the number 13, the rest of the file gives it 12"#)
    #expect(
      tree.replacing(#""content": "S""#, #""content": "b""#).refusal()
        == #"added token "b" has the number 12, the rest of the file gives it 1"#)
    // With a hole below, the library counts on to a number that is in use.
    #expect(
      tree.replacing(#""<unk>": 11"#, #""<unk>": 12"#).refusal()
        == #"added token "S" has the number 12, the rest of the file gives it 12, another one's"#)
  }

  @Test func twoThatTheNormalizerMakesOneOfAreRefused() {
    let tree = Tree().setting("normalizer", #"{"type": "Lowercase"}"#)
      .adding(("X", "normalized"), ("x", "normalized"))
    #expect(
      tree.refusal()
        == #"the added tokens "X" and "x" are the same text after the normalizer"#)
  }

  @Test func oneOfWhichTheNormalizerLeavesNothingIsRefused() {
    let tree = Tree()
      .setting("normalizer", #"{"type": "Strip", "strip_left": true, "strip_right": false}"#)
    #expect(tree.adding(("  ", "")).refusal() == nil)
    #expect(
      tree.adding(("  ", "normalized")).refusal()
        == "the added token \"  \" is nothing after the normalizer")
  }

  @Test func ofTwoWithOneTextTheLastCounts() throws {
    let tree = Tree().adding(("S", ""), ("S", "lstrip"))
      .replacing(#""id": 13"#, #""id": 12"#)
    #expect(try tree.tokens("a S") == ["a", "S"])
  }

  @Test(.timeLimit(.minutes(5)))
  func longSpaceIsGoneOverOnce() throws {
    let tree = Tree().adding(("  ", "lstrip rstrip"), ("R", "rstrip"), (" ", "rstrip"))
      .replacing(#""id": 14"#, #""id": 9"#)
    let text = String(repeating: " ", count: 300_001)
    #expect(try tree.tokens(text) == ["  ", " "])
    #expect(try tree.tokens("R" + text) == ["R", " "])
  }
}
