import Files

/// `[INST] … [/INST]` of Llama 2 and Mistral: user and assistant in turn, the eos token behind each
/// answer.
///
/// Source: the templates of Llama 2 Chat and of Mistral 7B Instruct, without tools.
struct InstructionLayout: Equatable, Sendable {
  /// Where a system message goes; it may only come first.
  enum System: Equatable, Sendable {
    /// There is none.
    case refused
    /// Into the first question, between `<<SYS>>` and `<</SYS>>`.
    case marked
    /// Before the first question, with a blank line between.
    case beforeFirst
    /// Before the last question, and nowhere where an answer ends the conversation.
    case beforeLast
  }

  /// Whether the bos token begins every question, and not the text alone.
  var hasBOSForEach = false
  /// What stands before a question.
  var open = "[INST] "
  /// What stands behind a question.
  var close = " [/INST]"
  /// What stands before an answer; a model generates it, since no prompt ends with it.
  var answerStart = ""
  /// What stands between an answer and its eos token.
  var answerEnd = ""
  /// What stands behind an answer's eos token.
  var gap = ""
  /// Whether questions, with what they hold of the system's, lose white space at both ends.
  var stripsQuestions = false
  /// Whether answers do.
  var stripsAnswers = false
  var system = System.refused

  static let llama2 = InstructionLayout(
    hasBOSForEach: true, answerStart: " ", answerEnd: " ", stripsQuestions: true,
    stripsAnswers: true, system: .marked)
  static let mistralV01 = InstructionLayout(gap: " ")
  static let mistralV02 = InstructionLayout()
  static let mistralV1 = InstructionLayout(
    open: " [INST] ", answerStart: " ", system: .beforeFirst)
  static let mistralV03 = InstructionLayout(
    close: "[/INST]", answerStart: " ", stripsAnswers: true, system: .beforeLast)

  func write(
    _ messages: [ChatMessage], bos: String, eos: String, named name: String,
    to text: inout ChatSegments
  ) throws(PeftoolError) {
    let hasSystem = messages.first?.role == .system && system != .refused
    try checkOrder(messages, skipping: hasSystem ? 1 : 0, named: name)
    let turns = messages.dropFirst(hasSystem ? 1 : 0)
    if !hasBOSForEach { text.append(bos) }
    for (index, message) in turns.enumerated() {
      if message.role == .assistant {
        let content = stripsAnswers ? message.content.pythonStripped : message.content
        text.appendAnswer(answerStart + content + answerEnd + eos)
        text.append(gap)
        continue
      }
      var content = message.content
      if hasSystem, let first = messages.first?.content {
        switch system {
        case .marked where index == 0: content = "<<SYS>>\n\(first)\n<</SYS>>\n\n" + content
        case .beforeFirst where index == 0: content = "\(first)\n\n" + content
        case .beforeLast where index == turns.count - 1: content = "\(first)\n\n" + content
        default: break
        }
      }
      if stripsQuestions { content = content.pythonStripped }
      text.append((hasBOSForEach ? bos : "") + open + content + close)
    }
  }

  private func checkOrder(
    _ messages: [ChatMessage], skipping count: Int, named name: String
  ) throws(PeftoolError) {
    for (index, message) in messages.enumerated().dropFirst(count) {
      let expected: ChatMessage.Role = (index - count).isMultiple(of: 2) ? .user : .assistant
      guard message.role == expected else {
        throw PeftoolError(
          .damaged,
          "messages[\(index)].role is \(message.role.rawValue), expected \(expected.rawValue): "
            + "the chat template \(name) takes "
            + (system == .refused ? "" : "a system message first and then ")
            + "user and assistant in turn")
      }
    }
    if messages.count == count {
      throw PeftoolError(.damaged, "has a system message alone, expected a user's behind it")
    }
  }
}
