/// Zephyr's and TinyLlama's: `<|role|>`, a newline, what is said, the eos token and a newline.
///
/// Source: the template of zephyr-7b-beta, as transformers' Jinja cuts its lines.
struct ZephyrLayout {
  func write(
    _ messages: [ChatMessage], eos: String, _ options: ChatTemplate.Options,
    to text: inout ChatSegments
  ) {
    for message in messages {
      text.append("<|\(message.role.rawValue)|>\n")
      if message.role == .assistant {
        text.appendAnswer(message.content + eos)
      } else {
        text.append(message.content + eos)
      }
      text.append("\n")
    }
    if options.isPrompt { text.append("<|assistant|>\n") }
  }
}
