import Examples
import Files
import Glibc
import LinearAlgebra
import Models
import Reports
import Tokenizers

/// How well a model predicts texts, or chooses answers.
///
/// Losses are natural logarithms, in f64 from logits in f32; sums are taken in the order of the
/// data, so that they depend on no number of threads.
struct Evaluation {
  /// How texts are cut, and what they are.
  struct Settings {
    /// The most tokens that the model sees at once.
    let maximumLength: Int
    /// The tokens from the beginning of a window to that of the next.
    let stride: Int
    /// What stands between a question and an answer.
    let delimiter: String
  }

  /// What has come of it.
  enum Outcome {
    case texts(TextScores)
    case questions(QuestionScores)
  }

  /// Of texts and examples.
  struct TextScores {
    /// The texts or examples.
    var count = 0
    /// The examples of more tokens than the model sees at once; a whole text is none.
    var windowedCount = 0
    /// The tokens that would be predicted, but stand first in a later window of their text.
    var skippedCount = 0
    /// The tokens that were predicted.
    var tokenCount = 0
    /// The sum of their losses.
    var lossSum = 0.0

    /// The mean loss of a token; nil of none.
    var loss: Double? { tokenCount == 0 ? nil : lossSum / Double(tokenCount) }
    /// e to the power of the loss.
    var perplexity: Double? { loss.map { exp($0) } }
  }

  /// Of questions.
  struct QuestionScores {
    /// The questions.
    var count = 0
    /// Those whose right answer has the highest likelihood (`acc` of lm-evaluation-harness).
    var correctCount = 0
    /// The same with its logarithm by the Unicode characters of the answer (`acc_norm`).
    var correctByCharactersCount = 0
    /// The same by the bytes of the answer (`acc_bytes`).
    var correctByBytesCount = 0
    /// The questions that lost their beginning, for the model takes no more.
    var cutCount = 0

    /// So many as a share of the questions.
    func share(_ correctCount: Int) -> Double { Double(correctCount) / Double(max(1, count)) }
  }

  let language: LanguageModel
  let settings: Settings
  var windows: ScoredWindows

  /// - Throws: `unsupported` where there is not the memory.
  init(
    _ language: LanguageModel, _ settings: Settings, team: ThreadTeam
  ) throws(PeftoolError) {
    self.language = language
    self.settings = settings
    try MemoryRoom.check(
      ScoredWindows.byteCount(language.model, threads: team.count, longest: settings.maximumLength),
      for: "a window of \(settings.maximumLength.groupedText) tokens", isBesideModel: true,
      wayOut: "a smaller --max-length", path: language.path)
    windows = ScoredWindows(language.model, team: team, longest: settings.maximumLength)
  }

  /// The tokens that have gone through the model.
  var computedTokenCount: Int { windows.computedCount }

  /// Scores a plain text, all of it one.
  ///
  /// - Throws: as the tokenizer, `damaged` for an empty text; with the path.
  mutating func score(text input: DataInput) throws(PeftoolError) -> Outcome {
    let (bytes, offset) = try input.all(limit: TokenExamples.maximumTextByteCount)
    let ids: [Int32]
    do throws(PeftoolError) {
      ids = try language.tokenizer.encode(bytes: bytes)
      try language.check(ids)
    } catch {
      throw PeftoolError(
        error.kind, error.reason, offset: error.offset.map { $0 + offset },
        path: error.path ?? input.path)
    }
    var scores = TextScores(count: 1)
    try score(ids, isLabel: ids.map { _ in true }, &scores)
    return .texts(try finished(scores, input))
  }

  /// Scores examples, of which what is learnt is predicted.
  ///
  /// - Throws: as the readers of the formats, with the file and the line.
  mutating func score(
    examples input: DataInput, _ format: DataFormat, _ tokenizer: ExampleTokenizer
  ) throws(PeftoolError) -> Outcome {
    var scores = TextScores()
    switch format {
    case .jsonl:
      var lines = JSONLines(input)
      while let example = try lines.next() { try score(example, input, tokenizer, &scores) }
    case .csv:
      var lines = CSVExamples(input)
      while let example = try lines.next() { try score(example, input, tokenizer, &scores) }
    case .txt, .safetensors:
      preconditionFailure("plain text has no examples, and numbers of tokens are refused")
    }
    return .texts(try finished(scores, input))
  }

  private mutating func score(
    _ example: Example, _ input: DataInput, _ tokenizer: ExampleTokenizer,
    _ scores: inout TextScores
  ) throws(PeftoolError) {
    do throws(PeftoolError) {
      let (ids, labels) = try tokenizer.tokens(of: example.content)
      try language.check(ids)
      scores.count += 1
      scores.windowedCount += ids.count > settings.maximumLength ? 1 : 0
      try score(ids, isLabel: labels.map { $0 != TokenExamples.ignored }, &scores)
    } catch {
      throw error.at(line: example.line, path: input.path)
    }
  }

  private mutating func score(
    _ ids: [Int32], isLabel: [Bool], _ scores: inout TextScores
  ) throws(PeftoolError) {
    let cut = StridedWindows(
      isLabel, length: settings.maximumLength, stride: settings.stride)
    for (range, flags) in cut {
      if range.lowerBound > 0, flags[0] { scores.skippedCount += 1 }
      guard flags.dropFirst().contains(true) else { continue }
      try windows.append(Array(ids[range]), isLabel: flags) { scores.add($0) }
    }
  }

  private mutating func finished(
    _ scores: TextScores, _ input: DataInput
  ) throws(PeftoolError) -> TextScores {
    var scores = scores
    try windows.finish { scores.add($0) }
    guard scores.count > 0 else {
      throw PeftoolError(.damaged, "has no examples, expected at least one", path: input.path)
    }
    guard scores.tokenCount > 0 else {
      throw PeftoolError(
        .damaged, "has no token that another stands before: nothing is predicted",
        path: input.path)
    }
    guard scores.lossSum.isFinite else {
      throw PeftoolError(
        .damaged,
        "what the model makes of the data is NaN or infinite; 'peftool verify' looks for such "
          + "weights", path: language.path)
    }
    return scores
  }
}

extension Evaluation.TextScores {
  fileprivate mutating func add(_ losses: ArraySlice<Double>) {
    tokenCount += losses.count
    for loss in losses { lossSum += loss }
  }
}
