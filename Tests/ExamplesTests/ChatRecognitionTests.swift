import Checkpoints
import Examples
import Files
import Fixtures
import Foundation
import Testing

private let text = "{% for m in messages %}\n{{ m.content }}\n{% endfor %}"

private func checksum(_ text: String) -> UInt64 {
  let bytes = Array(text.utf8)
  return Checksum.of(bytes.span.bytes)
}

private let known = [checksum(text): "zephyr"]

/// A folder with a tokenizer's configuration.
private func folder(_ config: String, jinja: String? = nil) throws -> Scratch {
  let scratch = try Scratch()
  try scratch.write("tokenizer_config.json", config)
  if let jinja { try scratch.write("chat_template.jinja", jinja) }
  return scratch
}

/// What is made of a folder with a tokenizer's configuration.
private func read<Result>(
  _ config: String, _ read: (_ folder: String) throws -> Result
) throws -> Result {
  let scratch = try folder(config)
  return try withExtendedLifetime(scratch) { try read(scratch.path) }
}

private let unknown =
  "the chat template is none that peftool knows (checksum "
private let advice =
  "), and templates out of files are not run; name the family that it is like with "
  + "--chat-template: " + ChatTemplate.names.joined(separator: ", ")

@Suite struct ChatRecognitionTests {
  @Test(arguments: [
    text, text + "\n", text.replacingOccurrences(of: "\n", with: "\r\n"),
    text.replacingOccurrences(of: "\n", with: "\r\n") + "\r\n",
  ])
  func aKnownTextIsItsFamily(text: String) throws {
    #expect(try ChatTemplate(recognizing: text, among: known).name == "zephyr")
  }

  @Test(arguments: ["", "\n", text + "\n\n", text + " ", " " + text, text + "\r"])
  func anyOtherTextIsRefusedWithWhatToDo(text: String) throws {
    let error = #expect(throws: PeftoolError.self) {
      try ChatTemplate(recognizing: text, among: known)
    }
    #expect(error?.kind == .unsupported)
    #expect(error?.reason.hasPrefix(unknown) == true && error?.reason.hasSuffix(advice) == true)
  }

  @Test func everyKnownTextHasAFamily() throws {
    #expect(ChatTemplate.upstream.count == 27)
    // Every family is recognised by some text.
    #expect(Set(ChatTemplate.upstream.values) == Set(ChatTemplate.names))
    #expect(ChatTemplate.samples.values.sorted() == ChatTemplate.names.sorted())
    #expect(Set(ChatTemplate.names).count == ChatTemplate.names.count)
  }

  /// With upstream's texts in a folder that CHAT_TEMPLATES names, as `qwen3#1.jinja`.
  @Test(.enabled(if: ProcessInfo.processInfo.environment["CHAT_TEMPLATES"] != nil))
  func upstreamsTextsAreRecognised() throws {
    let folder = try #require(ProcessInfo.processInfo.environment["CHAT_TEMPLATES"])
    let names = try FileManager.default.contentsOfDirectory(atPath: folder)
    #expect(names.count == 27)
    for name in names {
      let text = try String(contentsOfFile: "\(folder)/\(name)", encoding: .utf8)
      #expect(try ChatTemplate(recognizing: text).name == name.components(separatedBy: "#")[0])
    }
  }

  @Test(arguments: ChatTemplate.names)
  func ourOwnSpellingsAreRecognisedAndNotUpstreams(name: String) throws {
    let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("Samples/chat/\(name).jinja").path
    let text = try String(contentsOfFile: path, encoding: .utf8)
    #expect(try ChatTemplate(recognizing: text).name == name)
    #expect(throws: PeftoolError.self) {
      try ChatTemplate(recognizing: text, among: ChatTemplate.upstream)
    }
  }

  @Test func aNameThatIsNoneIsRefusedWithAllNames() {
    let error = #expect(throws: PeftoolError.self) { try ChatTemplate(named: "Llama-2\n") }
    #expect(
      error?.reason
        == "--chat-template 'Llama-2\\u{a}' is unknown, expected one of chatml, smollm2, "
        + "qwen1.5, qwen2, qwen2.5, qwen3, llama2, llama3, llama3.1, llama3.2, zephyr, "
        + "mistral-v0.1, mistral-v0.2, mistral-v0.3, mistral-v1")
  }

  @Test func aFolderWithoutATemplateHasNone() throws {
    let empty = try Scratch()
    #expect(try ChatTemplate(inFolder: empty.path) == nil)
    #expect(try SpecialTokens(inFolder: empty.path) == SpecialTokens())
    for config in ["{}", #"{"chat_template": null}"#] {
      #expect(try read(config) { try ChatTemplate(inFolder: $0) } == nil)
    }
  }

  @Test(arguments: [
    (
      #"{"chat_template": 3}"#,
      "chat_template is 3, expected a string, or an array of named templates"
    ),
    (
      #"{"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "é"}]}"#,
      "chat_template has 'tool_use', 'é', expected one named 'default'; name a family with "
        + "--chat-template"
    ),
    (
      #"{"chat_template": []}"#,
      "chat_template has no templates, expected one named 'default'; name a family with "
        + "--chat-template"
    ),
    (#"{"chat_template": [{"name": "default"}]}"#, "template is missing, expected a string"),
    (#"{"chat_template": ["x"]}"#, "name is missing, expected a string"),
  ])
  func anythingElseIsRefusedWithTheFile(config: String, reason: String) throws {
    let scratch = try folder(config)
    let error = #expect(throws: PeftoolError.self) { try ChatTemplate(inFolder: scratch.path) }
    #expect(error?.reason == reason)
    #expect(error?.path == scratch.path("tokenizer_config.json"))
  }

  @Test func theFileCountsBeforeTheConfiguration() throws {
    let scratch = try folder(#"{"chat_template": 3}"#, jinja: "x")
    let error = #expect(throws: PeftoolError.self) { try ChatTemplate(inFolder: scratch.path) }
    #expect(error?.path == scratch.path("chat_template.jinja"))
    #expect(error?.reason.hasPrefix(unknown) == true)
    try scratch.write("chat_template.jinja", [0x61, 0xFF])
    let bytes = #expect(throws: PeftoolError.self) { try ChatTemplate(inFolder: scratch.path) }
    #expect(bytes?.reason == "the text is no UTF-8" && bytes?.offset == 1)
    try scratch.write("chat_template.jinja", [UInt8](repeating: 0x61, count: 1 << 20 + 1))
    let long = #expect(throws: PeftoolError.self) { try ChatTemplate(inFolder: scratch.path) }
    #expect(long?.reason == "1048577 bytes, expected a chat template of at most 1048576")
  }

  @Test func ofAListTheDefaultIsLookedAt() throws {
    let scratch = try folder(
      #"{"chat_template": [{"name": "a", "template": 1}, {"name": "default", "template": "x"}]}"#)
    let error = #expect(throws: PeftoolError.self) { try ChatTemplate(inFolder: scratch.path) }
    #expect(error?.reason.hasPrefix(unknown) == true)
  }

  @Test func tokensAreStringsOrObjects() throws {
    let scratch = try folder(
      #"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>"}"#)
    #expect(try SpecialTokens(inFolder: scratch.path) == SpecialTokens(bos: "<s>", eos: "</s>"))
    #expect(
      try read(#"{"bos_token": null}"#) { try SpecialTokens(inFolder: $0) } == SpecialTokens())
    for bad in [#"{"eos_token": 2}"#, #"{"eos_token": {"content": 2}}"#, #"{"eos_token": []}"#] {
      let error = #expect(throws: PeftoolError.self) {
        try read(bad) { try SpecialTokens(inFolder: $0) }
      }
      #expect(error?.reason.hasSuffix(", expected a string, or an object with content") == true)
    }
  }
}
