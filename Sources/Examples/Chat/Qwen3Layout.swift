/// ChatML of Qwen3, which thinks in `<think>` first.
///
/// Thoughts stay only in answers to the last question: those of earlier turns are left out, and
/// the last answer has empty ones where it has none. Source: Qwen3's template, without tools.
struct Qwen3Layout {
  func write(
    _ messages: [ChatMessage], _ options: ChatTemplate.Options, to text: inout ChatSegments
  ) {
    let question = messages.lastIndex(where: isQuestion) ?? messages.count - 1
    for (index, message) in messages.enumerated() {
      text.append(ChatMLLayout.header(message.role))
      if message.role == .assistant {
        let answer = answer(
          message, isAfterQuestion: index > question, isLast: index == messages.count - 1)
        text.appendAnswer(answer + ChatMLLayout.end)
      } else {
        text.append(message.content + ChatMLLayout.end)
      }
      text.append("\n")
    }
    guard options.isPrompt else { return }
    text.append(ChatMLLayout.header(.assistant))
    if !options.isThinking { text.append("<think>\n\n</think>\n\n") }
  }

  /// Whether a person asks here, and no tool answers in a person's name.
  private func isQuestion(_ message: ChatMessage) -> Bool {
    message.role == .user
      && !(message.content.begins(with: "<tool_response>")
        && message.content.ends(with: "</tool_response>"))
  }

  private func answer(_ message: ChatMessage, isAfterQuestion: Bool, isLast: Bool) -> String {
    var (content, reasoning) = (message.content, message.reasoning ?? "")
    if message.reasoning == nil, !content.occurrences(of: "</think>").isEmpty {
      reasoning =
        content.before(firstOf: "</think>").withoutTrailingNewlines
        .after(lastOf: "<think>").withoutLeadingNewlines
      content = content.after(lastOf: "</think>").withoutLeadingNewlines
    }
    guard isAfterQuestion, isLast || !reasoning.isEmpty else { return content }
    let thoughts = reasoning.withoutLeadingNewlines.withoutTrailingNewlines
    return "<think>\n\(thoughts)\n</think>\n\n\(content.withoutLeadingNewlines)"
  }
}
