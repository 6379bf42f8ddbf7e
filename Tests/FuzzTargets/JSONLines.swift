import Examples
import Files

/// Lines are refused with an error that names one of them, or are examples in ascending lines, of
/// which every chat template makes a text that holds what is said.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  var lines = JSONLines(DataInput(bytes))
  var line = 0
  do throws(PeftoolError) {
    while let example = try lines.next() {
      precondition(example.line > line, "lines that do not ascend")
      line = example.line
      if case .messages(let messages) = example.content { write(messages) }
    }
  } catch {
    precondition(error.reason.utf8.starts(with: "line ".utf8), "no line")
    precondition(error.description.utf8.count < 4096, "a message that is too long")
    precondition(error.offset.map { $0 <= count } ?? true, "a place past the end")
  }
  return 0
}

private let templates: [ChatTemplate] = ChatTemplate.names.map { name in
  do throws(PeftoolError) {
    return try ChatTemplate(named: name)
  } catch {
    fatalError("\(error)")
  }
}

private func write(_ messages: [ChatMessage]) {
  for template in templates {
    do throws(PeftoolError) {
      let chat = try template.segments(
        messages, tokens: SpecialTokens(bos: "<s>", eos: "</s>"),
        options: .init(isPrompt: true, isThinking: messages.count % 2 == 0))
      let answers = chat.segments.count { $0.isAssistant }
      precondition(answers == messages.count { $0.role == .assistant }, "an answer that is lost")
      precondition(!chat.segments.contains { $0.text.isEmpty }, "an empty piece")
      guard template.name == "chatml" else { continue }
      var rest = Array(chat.text.utf8)[...]
      for message in messages {
        let said = Array("\(message.role.rawValue)\n\(message.content)<|im_end|>\n".utf8)
        precondition(rest.dropFirst(12).starts(with: said), "what is said is not written")
        rest = rest.dropFirst(12 + said.count)
      }
    } catch {
      precondition(error.description.utf8.count < 4096, "a message that is too long")
    }
  }
}
