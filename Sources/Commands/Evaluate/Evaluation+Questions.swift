import Examples
import Files
import Tokenizers

// Questions with answers to choose from, as lm-evaluation-harness scores `multiple_choice` tasks.
extension Evaluation {
  /// Scores questions by the likelihood of each answer after the question.
  ///
  /// Prompt, delimiter and answer are encoded as one text; the answer's tokens are those behind as
  /// many as the prompt alone has, without white space at its end (`TemplateLM._encode_pair` of
  /// lm-evaluation-harness). Of equals the first answer is chosen. What is longer than the model
  /// takes loses its beginning.
  /// - Throws: as `QuestionLines`, and where an answer has no token of its own, with the line.
  mutating func score(questions input: DataInput) throws(PeftoolError) -> Outcome {
    var lines = QuestionLines(input)
    var scores = QuestionScores()
    while let question = try lines.next() {
      do throws(PeftoolError) {
        let (likelihoods, isCut) = try likelihoods(of: question)
        func isRight(_ length: (String) -> Int) -> Bool {
          let values = zip(likelihoods, question.choices).map { $0 / Double(length($1)) }
          return values.firstLargest == question.answer
        }
        scores.count += 1
        scores.cutCount += isCut ? 1 : 0
        scores.correctCount += isRight { _ in 1 } ? 1 : 0
        scores.correctByCharactersCount += isRight(\.unicodeScalars.count) ? 1 : 0
        scores.correctByBytesCount += isRight(\.utf8.count) ? 1 : 0
      } catch {
        throw error.at(line: question.line, path: input.path)
      }
    }
    guard scores.count > 0 else {
      throw PeftoolError(.damaged, "has no questions, expected at least one", path: input.path)
    }
    return .questions(scores)
  }

  /// The logarithm of each answer's likelihood, and whether the prompt lost its beginning.
  private mutating func likelihoods(
    of question: Question
  ) throws(PeftoolError) -> (likelihoods: [Double], isCut: Bool) {
    let prompt = question.prompt.withoutTrailingPythonSpace
    var given = try language.encode(prompt)
    var start: [Int32] = []
    if given.isEmpty {
      // Something has to stand before the first token.
      guard let token = language.tokens.bos ?? language.tokens.eos,
        let id = language.tokenizer.id(of: token)
      else {
        throw PeftoolError(
          .different, "the prompt has no tokens, and the tokenizer names none to begin with")
      }
      try language.check([id])
      (start, given) = ([id], [id])
    }
    var likelihoods: [Double] = []
    var isCut = false
    for choice in question.choices {
      let text = question.prompt + settings.delimiter + choice
      let ids = start + (try language.encode(text))
      guard ids.count > given.count else {
        throw PeftoolError(
          .unsupported, "the choice '\(choice.printable)' adds no token to the prompt")
      }
      let answerCount = ids.count - given.count
      let kept = ids.suffix(settings.maximumLength)
      isCut = isCut || kept.count < ids.count
      guard answerCount < kept.count else {
        throw PeftoolError(
          .unsupported,
          "the choice '\(choice.printable)' has \(answerCount) tokens, --max-length is "
            + "\(settings.maximumLength)")
      }
      let flags = kept.indices.map { $0 >= kept.endIndex - answerCount }
      try windows.append(Array(kept), isLabel: flags) { likelihoods.append(-$0.reduce(0, +)) }
    }
    try windows.finish { likelihoods.append(-$0.reduce(0, +)) }
    guard likelihoods.allSatisfy(\.isFinite) else {
      throw PeftoolError(
        .damaged,
        "what the model makes of question \(question.line) is NaN or infinite; 'peftool verify' "
          + "looks for such weights", path: language.path)
    }
    return (likelihoods, isCut)
  }
}

extension [Double] {
  /// The place of the largest; of equals the first.
  fileprivate var firstLargest: Int? {
    indices.max { self[$0] < self[$1] || self[$0] == self[$1] && $0 > $1 }
  }
}
