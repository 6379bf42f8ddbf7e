import Examples
import Files
import LinearAlgebra
import Models
import Tokenizers

/// How a model goes on with the beginnings of some examples, before training and after it.
struct FinetuneSamples {
  private let language: LanguageModel
  private let prompts: [(tokens: [Int32], expected: [Int32])]
  private let team: ThreadTeam

  /// The most examples, tokens that are added, and tokens that a text without a prompt begins with.
  private static let (maximumCount, maximumLength, beginning) = (3, 64, 16)

  /// Chooses the first examples.
  init(_ data: TokenExamples, language: LanguageModel, team: ThreadTeam) {
    self.language = language
    self.team = team
    prompts = (0..<min(Self.maximumCount, data.count)).map { number in
      let range = data.range(number)
      let (ids, labels) = (Array(data.ids[range]), Array(data.labels[range]))
      let given = labels.firstIndex { $0 != TokenExamples.ignored } ?? 0
      // Of a text, all of which is learnt, some tokens are given.
      let end = given > 1 ? given : min(Self.beginning, (ids.count + 1) / 2)
      let last = labels[end...].firstIndex { $0 == TokenExamples.ignored } ?? ids.count
      return (Array(ids[..<end]), Array(ids[end..<last]))
    }
  }

  /// The texts that are given, and what the examples go on with.
  func givenTexts() throws(PeftoolError) -> [(prompt: String, expected: String)] {
    var texts: [(prompt: String, expected: String)] = []
    for prompt in prompts {
      texts.append(
        (
          try language.tokenizer.decode(prompt.tokens, skippingSpecialTokens: false),
          try language.tokenizer.decode(prompt.expected, skippingSpecialTokens: true)
        ))
    }
    return texts
  }

  /// What the model goes on with now, the most likely token each time.
  ///
  /// - Throws: as `TextGeneration.run`.
  func texts() throws(PeftoolError) -> [String] {
    let generation = TextGeneration(
      language: language, sampling: Sampling(), endTokens: language.endTokens, stops: [],
      maximumTokenCount: Self.maximumLength)
    var texts: [String] = []
    for prompt in prompts {
      texts.append(try generation.run(prompt.tokens, team: team) { _ in }.text)
    }
    return texts
  }
}

extension LanguageModel {
  /// A model that is in memory already, with what cuts its texts.
  init(_ model: Llama, path: String, _ encoder: TokenEncoder, _ tokens: Examples.SpecialTokens) {
    self.path = path
    folder = path
    self.model = model
    tokenizer = encoder.tokenizer
    self.tokens = tokens
    endTokens = Set([encoder.eos.flatMap(encoder.tokenizer.id)].compactMap(\.self))
    adapters = []
    notes = []
  }
}
