import Examples
import Files
import Tokenizers

/// How a text becomes the tokens that a model goes on with: as it is, or in a chat template.
struct PromptForm {
  /// What ends the text that is added.
  let endTokens: Set<Int32>
  /// What the user should know: one sentence each.
  let notes: [String]
  private let template: ChatTemplate?
  private let system: String?

  /// Texts as they are.
  init(_ language: LanguageModel) {
    endTokens = language.endTokens
    (notes, template, system) = ([], nil, nil)
  }

  /// Texts as the messages of a user to an assistant.
  ///
  /// - Parameters:
  ///   - named: the template; nil for the model's.
  ///   - system: what the assistant is told first.
  /// - Throws: `different` where the model has none; as `ChatTemplate`.
  init(
    _ language: LanguageModel, chat named: ChatTemplate?, system: String?
  ) throws(PeftoolError) {
    let template: ChatTemplate
    if let named { template = named } else { template = try Self.template(of: language) }
    self.template = template
    self.system = system
    let turnEnd = try template.turnEnd(language.tokens)
    if let end = language.tokenizer.id(of: turnEnd) {
      endTokens = language.endTokens.union([end])
      notes = []
    } else {
      endTokens = language.endTokens
      notes = [
        "the tokenizer has no token '\(turnEnd.printable)', which ends a turn in the chat "
          + "template \(template.name): the model has hardly learnt from it"
      ]
    }
  }

  /// The tokens of a text.
  ///
  /// - Throws: as `LanguageModel.encode` and `ChatTemplate.segments`.
  func tokens(of text: String, _ language: LanguageModel) throws(PeftoolError) -> [Int32] {
    guard let template else { return try language.encode(text) }
    let messages = [system.map { ChatMessage(.system, $0) }, ChatMessage(.user, text)]
    let segments = try template.segments(
      messages.compactMap(\.self), tokens: language.tokens, options: .init(isPrompt: true))
    return try language.encode(segments.text, addingSpecialTokens: false)
  }

  private static func template(of language: LanguageModel) throws(PeftoolError) -> ChatTemplate {
    guard let template = try ChatTemplate(inFolder: language.folder) else {
      throw PeftoolError(
        .different,
        "the model has no chat template; --chat-template names one: "
          + ChatTemplate.names.joined(separator: ", "), path: language.path)
    }
    return template
  }
}
