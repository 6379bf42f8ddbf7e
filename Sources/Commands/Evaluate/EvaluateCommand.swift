import ArgumentParser
import Examples
import Files
import JSON
import Models
import Reports

/// `peftool evaluate`: how well a model predicts.
struct EvaluateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "evaluate",
    abstract: "Measures loss, perplexity or accuracy of a model, with or without adapters.",
    discussion: """
      Reads FILE and prints how well the model predicts it. Models and adapters are those of \
      `generate`.

        peftool evaluate tiny-chat --data story.txt
        peftool evaluate tiny-chat --data pairs.jsonl --max-length 64
        peftool evaluate tiny-chat --data questions.jsonl

      What is predicted follows from FILE:

        .txt              all of it as one text
        .jsonl, .csv      texts, prompts with completions, or (.jsonl) conversations
        .jsonl, choices   {"prompt", "choices", "answer"}: which answer is the likeliest

      Of a text every token is predicted but the first; of prompts, completions and conversations \
      what training would learn.

      Loss is the mean of -ln p over all predicted tokens, perplexity e to the power of it. A text \
      longer than --max-length goes in windows that begin --stride tokens apart; each token is \
      predicted in the first window that has it, so that a short stride lets it see more, and what \
      is predicted late in a long example may not see its prompt: the summary tells of such. Where \
      windows do not overlap, the first token of each has nothing before it and is left out.

      Of questions the accuracy by the summed logarithm of the answer's likelihood, and by that \
      divided by the answer's characters and by its bytes: acc, acc_norm and acc_bytes of \
      lm-evaluation-harness. Prompt and answer are joined by --delimiter.

      --data - reads JSON lines from standard input. Formats/json-output.md describes what --json \
      prints.
      """)

  @Argument(help: "The model's directory.", completion: .file())
  var model: String

  @Option(
    help: ArgumentHelp("The file that is predicted.", valueName: "file"), completion: .file())
  var data: [String]

  @Option(
    help: ArgumentHelp(
      "What the file is, whatever its name: jsonl, csv or txt.", valueName: "format"))
  var dataFormat: DataFormat?

  @Option(
    help: ArgumentHelp(
      "The most tokens that the model sees at once (default: 2048, or what it takes).",
      valueName: "n"))
  var maxLength: Int?

  @Option(
    help: ArgumentHelp(
      "The tokens between the beginnings of two windows (default: --max-length).", valueName: "n"))
  var stride: Int?

  @Option(
    help: ArgumentHelp(
      "The family of the chat template, such as chatml or llama3.", valueName: "name"))
  var chatTemplate: String?

  @Option(
    help: ArgumentHelp(
      "What stands between a question and an answer: a space if left out.", valueName: "text"))
  var delimiter = " "

  @OptionGroup var options: ModelOptions

  private static let defaultLength = 2048

  func validate() throws {
    guard data.count == 1 else {
      throw ValidationError(
        "--data is given \(data.count) times, and one file is evaluated at a time")
    }
    if let maxLength, maxLength < 2 {
      throw ValidationError("--max-length is \(maxLength), expected 2 or more")
    }
    if let stride, !(1...(maxLength ?? .max)).contains(stride) {
      throw ValidationError("--stride is \(stride), expected 1 to --max-length")
    }
    if dataFormat == .safetensors {
      throw ValidationError("--data-format is safetensors, expected jsonl, csv or txt")
    }
  }

  func run() throws {
    let start = monotonicSeconds()
    let data = data[0]
    let format = try dataFormat ?? DataFormat(ofPath: data, among: [.jsonl, .csv, .txt])
    // What is wrong with the words is told before gigabytes are read.
    let named = try chatTemplate.map { (name) throws(PeftoolError) in
      try ChatTemplate(named: name)
    }
    let input = try InputData(data)
    _ = try input.opened()
    let language = try LanguageModel(opening: model, options)
    var evaluation = try Evaluation(language, settings(of: language), team: options.team)
    let outcome: Evaluation.Outcome
    if format == .txt {
      outcome = try evaluation.score(text: input.opened())
    } else if format == .jsonl, try QuestionLines.isFirst(of: input.opened()) {
      outcome = try evaluation.score(questions: input.opened())
    } else {
      outcome = try evaluation.score(
        examples: input.opened(), format,
        try exampleTokenizer(language, named, hasMessages: input.hasMessages(format)))
    }
    let report = EvaluationReport(
      evaluation: evaluation, outcome: outcome, data: data, seconds: monotonicSeconds() - start)
    try StandardOutput.print(
      options.json
        ? report.json.text(indent: 2) + "\n" : report.text(width: StandardOutput.width))
    if !options.json, !options.quiet {
      writeToStandardError(language.notes.map { "note: \($0)\n" }.joined())
    }
  }

  private func settings(of language: LanguageModel) throws(PeftoolError) -> Evaluation.Settings {
    let limit = language.model.configuration.contextLength
    let length = maxLength ?? min(Self.defaultLength, limit)
    guard length <= limit else {
      throw PeftoolError(
        .unsupported,
        "--max-length is \(length), the model takes texts of \(limit) tokens "
          + "(max_position_embeddings)", path: model)
    }
    guard length > 1, stride ?? 1 <= length else {
      throw PeftoolError(
        .unsupported, "--stride is \(stride ?? 1), the windows have \(length) tokens",
        path: model)
    }
    return Evaluation.Settings(
      maximumLength: length, stride: stride ?? length, delimiter: delimiter)
  }

  /// - Parameter hasMessages: whether a chat template is needed: of one that is not known nothing is
  ///   said otherwise.
  private func exampleTokenizer(
    _ language: LanguageModel, _ named: ChatTemplate?, hasMessages: Bool
  ) throws(PeftoolError) -> ExampleTokenizer {
    var template = named
    if hasMessages, named == nil { template = try ChatTemplate(inFolder: language.folder) }
    return ExampleTokenizer(
      encoder: try TokenEncoder(language.tokenizer, eos: language.tokens.eos), template: template,
      tokens: language.tokens, length: .init(maximum: .max, truncates: true))
  }
}

/// Data that may be read twice: a file, or all of standard input.
private struct InputData {
  private let path: String
  private let bytes: [UInt8]?

  /// The most bytes of standard input, which are in memory.
  private static let maximumByteCount = 1 << 30

  init(_ path: String) throws(PeftoolError) {
    self.path = path
    bytes =
      path == DataInput.standardInputPath
      ? try DataInput(opening: path).all(limit: Self.maximumByteCount).bytes : nil
  }

  /// Whether the first example is a conversation.
  func hasMessages(_ format: DataFormat) throws(PeftoolError) -> Bool {
    guard format == .jsonl else { return false }
    var lines = JSONLines(try opened())
    guard case .messages = try lines.next()?.content else { return false }
    return true
  }

  /// The data from their beginning.
  func opened() throws(PeftoolError) -> DataInput {
    if let bytes { return DataInput(bytes, path: "standard input") }
    return try DataInput(opening: path)
  }
}
