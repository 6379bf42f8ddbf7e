import JSON
import Testing
import Tokenizers

@Suite struct GoldenTests {
  @Test(arguments: Samples.names)
  func tokensAreThoseOfTheLibrary(name: String) throws {
    let tokenizer = try Samples.tokenizer(name)
    let answers = try Samples.answers(name)
    #expect(answers.count > 40)
    for answer in answers {
      #expect(try tokenizer.encode(answer.text) == answer.ids, "\(answer.text)")
      #expect(
        try tokenizer.encode(answer.text, addingSpecialTokens: false) == answer.plain,
        "\(answer.text)")
    }
  }

  @Test(arguments: Samples.names)
  func textIsThatOfTheLibrary(name: String) throws {
    let tokenizer = try Samples.tokenizer(name)
    for answer in try Samples.answers(name) {
      let decoded = try tokenizer.decode(answer.ids)
      #expect(decoded.isExactly(answer.decoded), "\(answer.text)")
      let skipped = try tokenizer.decode(answer.ids, skippingSpecialTokens: true)
      #expect(skipped.isExactly(answer.skipped), "\(answer.text)")
    }
  }
}
