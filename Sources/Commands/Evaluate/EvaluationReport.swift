import Files
import JSON
import Reports

/// How well a model has predicted, in words and as JSON.
struct EvaluationReport {
  let evaluation: Evaluation
  let outcome: Evaluation.Outcome
  let data: String
  let seconds: Double

  /// The figures for a person.
  func text(width: Int) -> String {
    var facts = Facts()
    facts.append("model", evaluation.language.path.printable)
    for path in evaluation.language.adapters { facts.append("adapter", path.printable) }
    facts.append("data", data.printable)
    switch outcome {
    case .texts(let scores):
      facts.append("predicted", "\(scores.tokenCount.text(of: "token")) of \(what(scores.count))")
      facts.append("loss", scores.loss?.fixed(6))
      facts.append("perplexity", scores.perplexity?.fixed(4))
      facts.append("note", windowsNote)
    case .questions(let scores):
      facts.append("questions", scores.count.groupedText)
      for (name, count) in [
        ("accuracy", scores.correctCount), ("by characters", scores.correctByCharactersCount),
        ("by bytes", scores.correctByBytesCount),
      ] {
        facts.append(name, "\(scores.share(count).percentText) (\(count.groupedText) right)")
      }
      if scores.cutCount > 0 {
        facts.append(
          "note",
          "\(scores.cutCount.text(of: "question")) lost the beginning (--max-length)")
      }
    }
    facts.append(
      "computed",
      "\(evaluation.computedTokenCount.text(of: "token")) in \(seconds.durationText)")
    return facts.text(width: width)
  }

  /// What a reader of a loss has to know where examples do not fit.
  private var windowsNote: String? {
    guard case .texts(let scores) = outcome, scores.windowedCount > 0 else { return nil }
    return
      "\(what(scores.windowedCount)) longer than --max-length, predicted in windows, of which the "
      + "later may not see the prompt"
      + (scores.skippedCount > 0
        ? "; \(scores.skippedCount.text(of: "token")) first in a window not predicted" : "")
  }

  private func what(_ count: Int) -> String { count.text(of: "text") }

  /// The same for a program; `Formats/json-output.md` describes it.
  var json: JSON {
    let settings = evaluation.settings
    func number(_ value: Double?) -> JSON {
      value.flatMap { $0.isFinite ? .number($0) : nil } ?? .null
    }
    var members: [JSON.Member] = [
      .init("model", .string(evaluation.language.path)),
      .init("adapters", .array(evaluation.language.adapters.map { .string($0) })),
      .init("data", .string(data)),
      .init("maxLength", .number(settings.maximumLength)),
      .init("stride", .number(settings.stride)),
    ]
    var texts: Evaluation.TextScores?
    var questions: Evaluation.QuestionScores?
    switch outcome {
    case .texts(let scores): texts = scores
    case .questions(let scores): questions = scores
    }
    members += [
      .init("kind", .string(texts == nil ? "questions" : "texts")),
      .init("count", .number(texts?.count ?? questions?.count ?? 0)),
      .init("predictedTokens", texts.map { .number($0.tokenCount) } ?? .null),
      .init("loss", number(texts?.loss)),
      .init("perplexity", number(texts?.perplexity)),
      .init("accuracy", number(questions.map { $0.share($0.correctCount) })),
      .init(
        "accuracyByCharacters", number(questions.map { $0.share($0.correctByCharactersCount) })),
      .init("accuracyByBytes", number(questions.map { $0.share($0.correctByBytesCount) })),
      .init("cutQuestions", questions.map { .number($0.cutCount) } ?? .null),
      .init("windowedTexts", texts.map { .number($0.windowedCount) } ?? .null),
      .init("computedTokens", .number(evaluation.computedTokenCount)),
      .init("seconds", .number(seconds)),
      .init(
        "notes",
        .array((evaluation.language.notes + [windowsNote].compactMap(\.self)).map { .string($0) })),
    ]
    return .object(members)
  }
}
