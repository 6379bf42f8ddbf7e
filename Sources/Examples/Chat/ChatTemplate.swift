package import Files

/// How a conversation becomes the text that a model was trained on.
///
/// Hugging Face keeps this as a Jinja program beside the tokenizer. Programs out of files are not
/// run here: those of the families in use are known, and what they write is written by our own
/// code, byte for byte as transformers' `apply_chat_template` writes it without tools.
package struct ChatTemplate: Equatable, Sendable {
  /// The kinds of text, of which a family is one with its particulars.
  enum Layout: Equatable, Sendable {
    /// `<|im_start|>role`, with a system message that stands in where there is none.
    case chatML(defaultSystem: String?)
    /// ChatML of models that think in `<think>` first.
    case qwen3
    /// Headers of `<|start_header_id|>`, from Llama 3.1 on with the day in the system message.
    case llama3(Llama3Layout.Day?)
    /// Lines such as `<|user|>`, turns that end with the eos token.
    case zephyr
    /// `[INST] … [/INST]`.
    case instructions(InstructionLayout)
  }

  /// What a template is told besides the messages.
  package struct Options: Equatable, Sendable {
    /// Whether the text ends with what stands before an answer (`add_generation_prompt`).
    ///
    /// Families of `[INST]` have nothing to add.
    package var isPrompt: Bool
    /// Whether a model that thinks before it answers shall (`enable_thinking`): false writes empty
    /// thoughts into the prompt.
    package var isThinking: Bool
    /// The day in Llama 3's system message, as `26 Jul 2024` (`date_string`).
    ///
    /// Nil gives what the template does by itself: that day for `llama3.1`, and for `llama3.2` the
    /// day on which the program runs.
    package var date: String?

    package init(isPrompt: Bool = false, isThinking: Bool = true, date: String? = nil) {
      self.isPrompt = isPrompt
      self.isThinking = isThinking
      self.date = date
    }
  }

  /// The family's name, as `--chat-template` takes it.
  package let name: String
  let layout: Layout

  /// The families, in the order in which help lists them.
  static let families: [ChatTemplate] = [
    .init(name: "chatml", layout: .chatML(defaultSystem: nil)),
    .init(
      name: "smollm2",
      layout: .chatML(
        defaultSystem: "You are a helpful AI assistant named SmolLM, trained by Hugging Face")),
    .init(name: "qwen1.5", layout: .chatML(defaultSystem: "You are a helpful assistant")),
    .init(name: "qwen2", layout: .chatML(defaultSystem: "You are a helpful assistant.")),
    .init(
      name: "qwen2.5",
      layout: .chatML(
        defaultSystem: "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.")),
    .init(name: "qwen3", layout: .qwen3),
    .init(name: "llama2", layout: .instructions(.llama2)),
    .init(name: "llama3", layout: .llama3(nil)),
    .init(name: "llama3.1", layout: .llama3(.fixed("26 Jul 2024"))),
    .init(name: "llama3.2", layout: .llama3(.today)),
    .init(name: "zephyr", layout: .zephyr),
    .init(name: "mistral-v0.1", layout: .instructions(.mistralV01)),
    .init(name: "mistral-v0.2", layout: .instructions(.mistralV02)),
    .init(name: "mistral-v0.3", layout: .instructions(.mistralV03)),
    .init(name: "mistral-v1", layout: .instructions(.mistralV1)),
  ]

  private init(name: String, layout: Layout) {
    self.name = name
    self.layout = layout
  }

  /// The names that `--chat-template` takes.
  package static var names: [String] { families.map(\.name) }

  /// The family of that name.
  ///
  /// - Throws: `unsupported` with all names, where there is none such.
  package init(named name: String) throws(PeftoolError) {
    guard let family = Self.families.first(where: { $0.name == name }) else {
      throw PeftoolError(
        .unsupported,
        "--chat-template '\(name.printable)' is unknown, expected one of "
          + Self.names.joined(separator: ", "))
    }
    self = family
  }

  /// The day that it calls today, where that is the day on which the program runs: as
  /// `Options.date`, or another in its place.
  package func today(or other: String?) throws(PeftoolError) -> String? {
    guard case .llama3(.today) = layout else { return nil }
    if let other { return other }
    return try Llama3Layout.today
  }

  /// The token that ends an assistant's turn.
  ///
  /// - Throws: `different` where it is the eos token and the tokenizer names none.
  package func turnEnd(_ tokens: SpecialTokens) throws(PeftoolError) -> String {
    switch layout {
    case .chatML, .qwen3: ChatMLLayout.end
    case .llama3: Llama3Layout.end
    case .zephyr, .instructions: try tokens.eos(for: name)
    }
  }

  /// Writes a conversation.
  ///
  /// - Throws: `damaged` where there is no message, and where their order is none that the family
  ///   knows (its template raises there, or leaves a message out); `different` where the tokenizer
  ///   names no bos or eos token that the family writes.
  package func segments(
    _ messages: [ChatMessage], tokens: SpecialTokens, options: Options = Options()
  ) throws(PeftoolError) -> ChatSegments {
    guard !messages.isEmpty else {
      throw PeftoolError(.damaged, "has no messages, expected at least one")
    }
    var text = ChatSegments()
    switch layout {
    case .chatML(let defaultSystem):
      ChatMLLayout(defaultSystem: defaultSystem).write(messages, options, to: &text)
    case .qwen3: Qwen3Layout().write(messages, options, to: &text)
    case .llama3(let day):
      try Llama3Layout(day: day).write(
        messages, bos: tokens.bos(for: name), options, to: &text)
    case .zephyr: try ZephyrLayout().write(messages, eos: tokens.eos(for: name), options, to: &text)
    case .instructions(let instructions):
      try instructions.write(
        messages, bos: tokens.bos(for: name), eos: tokens.eos(for: name), named: name, to: &text)
    }
    return text
  }
}
