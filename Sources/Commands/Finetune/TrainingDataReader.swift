import Examples
import Files
import JSON
import Models
import Tokenizers

/// Reads examples with the model's own tokenizer and chat template.
struct TrainingDataReader {
  private let command: FinetuneCommand
  /// What makes tokens of texts; nil where all data are tokens already.
  let tokenizer: ExampleTokenizer?
  /// The day that conversations call today; nil where they don't, or have one of their own.
  var day: String? { tokenizer?.options.date }
  private let vocabularySize: Int
  /// The most tokens of an example.
  let maximumLength: Int

  /// The most tokens of an example where nobody says another number.
  static let defaultLength = 1024

  /// Opens what lies beside the model; no tokenizer is needed for data that are tokens.
  ///
  /// - Parameter day: what conversations call today, where it is not the day that it is.
  /// - Throws: `different` where the tokenizer is of another model, as `Tokenizer` and
  ///   `ChatTemplate`.
  init(
    _ command: FinetuneCommand, _ configuration: LlamaConfiguration, day: String?
  ) throws(PeftoolError) {
    self.command = command
    vocabularySize = configuration.vocabularySize
    if let length = command.data.maxLength, length > configuration.contextLength {
      throw PeftoolError(
        .different,
        "--max-length is \(length), the model has \(configuration.contextLength) positions",
        path: command.model)
    }
    // Who stretches positions or cuts attention in groups has long texts.
    let isLong = command.longTexts.long || command.longTexts.ropeScaling != nil
    maximumLength =
      command.data.maxLength
      ?? (isLong
        ? configuration.contextLength : min(Self.defaultLength, configuration.contextLength))
    guard maximumLength > 1 else {
      throw PeftoolError(
        .different,
        "takes texts of \(maximumLength) token, and one is predicted from those before it",
        path: command.model)
    }
    let paths = command.data.paths + command.data.evaluationPaths
    var isText = false
    for path in paths where try Self.format(of: path, command) != .safetensors { isText = true }
    tokenizer =
      isText
      ? try Self.tokenizer(command, configuration, maximumLength: maximumLength, day: day) : nil
  }

  private static func format(
    of path: String, _ command: FinetuneCommand
  ) throws(PeftoolError) -> DataFormat {
    if let format = command.data.format { return format }
    return try DataFormat(ofPath: path)
  }

  private static func tokenizer(
    _ command: FinetuneCommand, _ configuration: LlamaConfiguration, maximumLength: Int,
    day: String?
  ) throws(PeftoolError) -> ExampleTokenizer {
    let path = Folder.path(command.model, "tokenizer.json")
    guard Folder.exists(path) else {
      throw PeftoolError(
        .io, "is not there: text needs the model's tokenizer; tokens in .safetensors need none",
        path: path)
    }
    let tokenizer = try Tokenizer(contentsOf: path)
    guard tokenizer.vocabularySize <= configuration.vocabularySize else {
      throw PeftoolError(
        .different,
        "has \(tokenizer.vocabularySize) tokens, the model's embedding "
          + "\(configuration.vocabularySize): it is another model's", path: path)
    }
    let special = try Examples.SpecialTokens(inFolder: command.model)
    var template: ChatTemplate?
    var refusal: PeftoolError?
    if let name = command.data.chatTemplate {
      template = try ChatTemplate(named: name)
    } else {
      do throws(PeftoolError) {
        template = try ChatTemplate(inFolder: command.model)
      } catch  where error.kind == .unsupported {
        // Only messages need it.
        refusal = error
      }
    }
    return ExampleTokenizer(
      encoder: try TokenEncoder(tokenizer, eos: special.eos),
      template: template, withoutTemplate: refusal, tokens: special,
      options: .init(date: try template?.today(or: day)),
      trainsOnPrompt: command.data.trainOnPrompt,
      length: .init(maximum: maximumLength, truncates: command.data.truncate))
  }

  /// The examples of all files.
  ///
  /// - Throws: what is wrong with one, with its line.
  func read(_ paths: [String]) throws(PeftoolError) -> TokenExamples {
    var examples = TokenExamples()
    for path in paths {
      let format = try Self.format(of: path, command)
      if format == .safetensors {
        try examples.append(
          tokenFile: path, vocabularySize: vocabularySize,
          length: .init(maximum: maximumLength, truncates: command.data.truncate))
      } else if let tokenizer {
        try examples.append(DataInput(opening: path), format: format, tokenizer: tokenizer)
      }
    }
    guard examples.count > 0 else {
      throw PeftoolError(
        .damaged, "no example is left of \(paths.map(\.printable).joined(separator: ", "))")
    }
    return examples
  }
}
