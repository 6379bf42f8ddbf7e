/// ChatML: `<|im_start|>role`, a newline, what is said, `<|im_end|>` and a newline.
///
/// Source: the templates of OpenHermes 2.5, SmolLM2 and Qwen2.5, without tools.
struct ChatMLLayout {
  /// The system message of a conversation that does not begin with one.
  let defaultSystem: String?

  static let end = "<|im_end|>"

  static func header(_ role: ChatMessage.Role) -> String { "<|im_start|>\(role.rawValue)\n" }

  func write(
    _ messages: [ChatMessage], _ options: ChatTemplate.Options, to text: inout ChatSegments
  ) {
    if let defaultSystem, messages.first?.role != .system {
      text.append(Self.header(.system) + defaultSystem + Self.end + "\n")
    }
    for message in messages {
      text.append(Self.header(message.role))
      if message.role == .assistant {
        text.appendAnswer(message.content + Self.end)
      } else {
        text.append(message.content + Self.end)
      }
      text.append("\n")
    }
    if options.isPrompt { text.append(Self.header(.assistant)) }
  }
}
