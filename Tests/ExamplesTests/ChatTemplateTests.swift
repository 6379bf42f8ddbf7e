import Examples
import Files
import Fixtures
import Foundation
import JSON
import Testing

/// The path of a sample of chats.
private func sample(_ name: String) -> String {
  URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("Samples/chat/\(name)").path
}

/// A conversation with what transformers makes of it.
private struct GoldenChat {
  let messages: [ChatMessage]
  let options: ChatTemplate.Options
  /// Nil where the template raises.
  let text: String?
}

private let tokens = SpecialTokens(bos: "<s>", eos: "</s>")

private func goldenChats(_ name: String) throws -> [GoldenChat] {
  let golden = try JSON(opening: sample("conversations.json"))
  let texts = try golden.array(at: "texts", name)
  return try zip(golden.array(at: "conversations"), texts).map { chat, text in
    GoldenChat(
      messages: try chat.array(at: "messages").map { try ChatMessage($0, named: "message") },
      options: .init(
        isPrompt: try chat.bool(at: "prompt"), isThinking: try chat.bool(at: "thinking"),
        date: try chat.string(at: "date")),
      text: text == .null ? nil : try text.string(named: "text"))
  }
}

private let question = [ChatMessage(.user, "Why?"), ChatMessage(.assistant, "So.")]

@Suite struct ChatTemplateTests {
  @Test(arguments: ChatTemplate.names)
  func textsAreThoseOfTransformers(name: String) throws {
    let template = try ChatTemplate(named: name)
    let chats = try goldenChats(name)
    #expect(chats.count == 48 && chats.contains { $0.text != nil })
    for chat in chats {
      var text: String?
      do throws(PeftoolError) {
        text = try template.segments(chat.messages, tokens: tokens, options: chat.options).text
      } catch {}
      #expect(text.map { Array($0.utf8) } == chat.text.map { Array($0.utf8) })
    }
  }

  @Test(arguments: ChatTemplate.names)
  func anAnswerBeginsWhereThePromptForItEnds(name: String) throws {
    let template = try ChatTemplate(named: name)
    let end = ["<|im_end|>", "<|eot_id|>", "</s>"]
    let turns = [
      ("Hello", "Hi"), (" <think> ", "\n<|im_end|>"), ("x", "<think>\nq\n</think>\n\ny"), ("", ""),
    ].flatMap { [ChatMessage(.user, $0), ChatMessage(.assistant, $1)] }
    let whole = try template.segments(turns, tokens: tokens)
    var before = ""
    var answers = 0
    for segment in whole.segments {
      if segment.isAssistant {
        let asked = Array(turns[...(2 * answers)])
        let prompt = try template.segments(asked, tokens: tokens, options: .init(isPrompt: true))
        #expect(prompt.segments.map(\.isAssistant).last == false)
        #expect(prompt.text == before)
        #expect(end.contains { segment.text.hasSuffix($0) })
        answers += 1
      }
      before += segment.text
    }
    #expect(answers == 4)
  }

  @Test func thoughtsOfEarlierTurnsAreLeftOut() throws {
    let messages =
      question + [
        ChatMessage(.user, "And?"), ChatMessage(.assistant, "b", reasoning: "a"),
      ]
    let segments = try ChatTemplate(named: "qwen3").segments(
      [ChatMessage(.user, "0"), ChatMessage(.assistant, "<think>\nx\n</think>\n\n1")] + messages,
      tokens: tokens
    ).segments
    let answers = segments.filter(\.isAssistant).map(\.text)
    #expect(answers == ["1<|im_end|>", "So.<|im_end|>", "<think>\na\n</think>\n\nb<|im_end|>"])
  }

  @Test func llama32WritesTheDayOnWhichItRuns() throws {
    let format = DateFormatter()
    format.locale = Locale(identifier: "en_US_POSIX")
    format.dateFormat = "dd MMM yyyy"
    let before = format.string(from: Date())
    let text = try ChatTemplate(named: "llama3.2").segments(question, tokens: tokens).text
    let days = Set([before, format.string(from: Date())])
    #expect(days.contains { text.contains("Today Date: \($0)\n\n<|eot_id|>") })
    let fixed = try ChatTemplate(named: "llama3.1").segments(question, tokens: tokens).text
    #expect(fixed.contains("Today Date: 26 Jul 2024\n\n<|eot_id|>"))
  }

  @Test(
    arguments: [
      (
        "llama2", [.assistant],
        "messages[0].role is assistant, expected user: the chat template "
          + "llama2 takes a system message first and then user and assistant in turn"
      ),
      (
        "mistral-v0.1", [.system, .user],
        "messages[0].role is system, expected user: the chat "
          + "template mistral-v0.1 takes user and assistant in turn"
      ),
      (
        "mistral-v0.3", [.user, .system, .user],
        "messages[1].role is system, expected assistant: "
          + "the chat template mistral-v0.3 takes a system message first and then user and assistant "
          + "in turn"
      ),
      ("llama2", [.system], "has a system message alone, expected a user's behind it"),
      ("qwen3", [], "has no messages, expected at least one"),
    ] as [(String, [ChatMessage.Role], String)])
  func ordersThatATemplateDoesNotKnowAreRefused(
    name: String, roles: [ChatMessage.Role], reason: String
  ) throws {
    let template = try ChatTemplate(named: name)
    let error = #expect(throws: PeftoolError.self) {
      try template.segments(roles.map { ChatMessage($0, "x") }, tokens: tokens)
    }
    #expect(error?.reason == reason)
  }

  @Test func aTokenThatIsNotNamedIsAnError() throws {
    let error = #expect(throws: PeftoolError.self) {
      try ChatTemplate(named: "zephyr").segments(question, tokens: .init(bos: "<s>"))
    }
    #expect(
      error?.reason
        == "tokenizer_config.json names no eos_token, which the chat template zephyr writes")
    #expect(throws: PeftoolError.self) {
      try ChatTemplate(named: "llama3").segments(question, tokens: .init(eos: "</s>"))
    }
    let text = try ChatTemplate(named: "chatml").segments(question, tokens: .init()).text
    #expect(text == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n")
  }
}
