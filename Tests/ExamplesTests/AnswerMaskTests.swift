import Fixtures
import Testing
import Tokenizers

@testable import Examples

@Suite struct AnswerMaskTests {
  private static let names = ["gpt2", "smollm", "llama3", "qwen2", "nemo", "../data/tokenizer"]

  /// Texts of few letters, in which tokens reach over borders and are others when cut there.
  private func chat(_ random: inout SplitMix64, turnEnd: String) -> ChatSegments {
    var chat = ChatSegments()
    func text(_ random: inout SplitMix64) -> String {
      String(
        (0..<Int.random(in: 1...9, using: &random)).map { _ in
          Array("theca s.\n")[Int.random(in: 0..<9, using: &random)]
        })
    }
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      chat.append(text(&random))
      chat.appendAnswer(text(&random) + turnEnd)
    }
    chat.append(text(&random))
    return chat
  }

  /// As transformers tells by `char_to_token`; a token of bytes has a character for each.
  @Test(arguments: names, ["", "</s>", "<|im_end|>", "<|end_of_text|>"])
  func aTokenThatHoldsSomeOfAnAnswerIsTheAnswers(name: String, turnEnd: String) throws {
    let tokenizer = try Tokenizer(contentsOf: dataSample("../tokenizers/\(name).json"))
    let encoder = try TokenEncoder(tokenizer, eos: nil)
    var random = SplitMix64(seed: 5)
    for _ in 0..<200 {
      let chat = chat(&random, turnEnd: turnEnd)
      let isAnswer = chat.segments.flatMap { segment in
        segment.text.utf8.map { _ in segment.isAssistant }
      }
      let (ids, answers) = try encoder.encode(chat, turnEnd: turnEnd)
      #expect(try ids == tokenizer.encode(chat.text, addingSpecialTokens: false))
      var place = 0
      for (index, id) in ids.enumerated() {
        let count = try #require(tokenizer.token(id)).unicodeScalars.count
        let holds = isAnswer[place..<(place + count)].contains(true)
        #expect(
          answers.contains { $0.contains(index) } == holds, "token \(index) of \(chat.text)")
        place += count
      }
      #expect(place == isAnswer.count)
    }
  }

  @Test func endsAreThoseOfTheText() throws {
    for name in ["llama2", "mistral", "tinyllama"] {
      let tokenizer = try Tokenizer(contentsOf: dataSample("../tokenizers/\(name).json"))
      for text in ["the cat", "é日\u{1F389} x", "a</s>b", "", "  "] {
        let tokens = try tokenizer.encodeWithEnds(text)
        #expect(try tokens.ids == tokenizer.encode(text, addingSpecialTokens: false))
        #expect(tokens.ends.count == tokens.ids.count && tokens.ends == tokens.ends.sorted())
        #expect(tokens.ends.last ?? 0 == tokens.byteCount)
      }
    }
  }
}
