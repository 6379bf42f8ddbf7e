import Files
import JSON
import Models
import Reports

/// What has been generated, and how fast, in words and as JSON.
struct GenerationReport {
  let language: LanguageModel
  /// What the user should know: one sentence each.
  let notes: [String]
  let promptTokenCount: Int
  let result: TextGeneration.Result
  let seed: UInt64

  /// The notes for a person, a line each.
  var text: String {
    var speed = "first after \(result.firstTokenSeconds.durationText)"
    if let rate = result.tokensPerSecond { speed += ", then \(rate.fixed(1)) tokens/s" }
    let reason =
      switch result.finish {
      case .eos: "the model ended it"
      case .stop: "ended before '\((result.stop ?? "").printable)'"
      case .length: "ended by --max-tokens"
      case .context:
        "ended where the model takes no longer texts "
          + "(\(language.model.configuration.contextLength) tokens)"
      }
    let summary =
      "prompt of \(promptTokenCount.text(of: "token")); "
      + "\(result.tokens.count.text(of: "token")), \(speed); \(reason)"
    return (notes + [summary]).map { "note: \($0)\n" }.joined()
  }

  /// The same for a program; `Formats/json-output.md` describes it.
  var json: JSON {
    .object(
      [
        .init("model", .string(language.path)),
        .init("adapters", .array(language.adapters.map { .string($0) })),
      ] + result.members(promptTokenCount: promptTokenCount, seed: seed) + [
        .init("notes", .array(notes.map { .string($0) }))
      ])
  }
}

extension TextGeneration.Result {
  /// What a program is told of a text; `Formats/json-output.md` describes it.
  func members(promptTokenCount: Int, seed: UInt64) -> [JSON.Member] {
    [
      .init("text", .string(text)),
      .init("finish", .string(finish.rawValue)),
      .init("stop", stop.map { .string($0) } ?? .null),
      .init("promptTokens", .number(promptTokenCount)),
      .init("tokens", .number(tokens.count)),
      .init("ids", .array(tokens.map { .number(Int($0)) })),
      .init("seed", .number(String(seed))),
      .init("firstTokenSeconds", .number(firstTokenSeconds)),
      .init("seconds", .number(seconds)),
      .init("tokensPerSecond", tokensPerSecond.map { .number($0) } ?? .null),
    ]
  }
}
