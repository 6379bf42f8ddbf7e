import Examples
import Files
import Foundation
import JSON
import Testing
import Tokenizers

private let golden: JSON? = try? JSON(opening: dataSample("expected.json"))

private func expected(_ path: String...) throws -> [Labelled?] {
  let list = try #require(golden?.value(at: path)).array(named: "list")
  func numbers(_ json: JSON, _ key: String) throws -> [Int32] {
    try json.array(at: key).map { Int32(try $0.int(named: key)) }
  }
  return try list.map {
    $0 == .null ? nil : Labelled(ids: try numbers($0, "ids"), labels: try numbers($0, "labels"))
  }
}

private func examples(_ name: String, _ tokenizer: ExampleTokenizer) throws -> TokenExamples {
  var examples = TokenExamples()
  let path = dataSample(name)
  try examples.append(
    DataInput(opening: path), format: DataFormat(ofPath: path), tokenizer: tokenizer)
  return examples
}

@Suite struct ExampleTokenizerTests {
  @Test func textsAreThoseOfTransformers() throws {
    #expect(try examples("texts.jsonl", exampleTokenizer()).all == expected("texts"))
  }

  @Test(arguments: ["prompts.jsonl", "prompts.csv"])
  func completionsAreLearntAndPromptsAreNot(name: String) throws {
    let found = try examples(name, exampleTokenizer())
    #expect(found.all == (try expected("prompts")))
    let all = try examples(name, exampleTokenizer(trainsOnPrompt: true))
    #expect(all.all.map(\.ids) == found.all.map(\.ids))
    #expect(all.all.allSatisfy { $0.ids == $0.labels })
  }

  @Test(arguments: ["chatml", "mistral-v1"])
  func answersAreThoseOfTransformers(template: String) throws {
    let found = try examples("chats.jsonl", exampleTokenizer(template))
    #expect(found.all == (try expected("chats", template)))
    let all = try examples("chats.jsonl", exampleTokenizer(template, trainsOnPrompt: true))
    #expect(all.all.map(\.ids) == found.all.map(\.ids))
    #expect(all.all.allSatisfy { $0.ids == $0.labels })
  }

  /// Some of these have the template's tokens and others have not, some put a space before a text.
  @Test(
    arguments: ["gpt2", "smollm", "llama3", "qwen2", "nemo", "mistral", "llama2", "tinyllama"],
    ["chatml", "mistral-v1"])
  func answersAreFoundWithEveryKindOfTokenizer(name: String, template: String) throws {
    let path = dataSample("../tokenizers/\(name).json")
    let tokenizer = ExampleTokenizer(
      encoder: try TokenEncoder(Tokenizer(contentsOf: path), eos: nil),
      template: try ChatTemplate(named: template), tokens: SpecialTokens(bos: "<s>", eos: "</s>"),
      length: .init(maximum: 1 << 20, truncates: false))
    let right = try expected("chats", name, template)
    // Transformers loses answers that begin with a space where offsets are trimmed.
    let known = name != "llama3" ? 4 : template == "chatml" ? 3 : 0
    #expect(right.count { $0 != nil } == known)
    let found = try examples("chats.jsonl", tokenizer).all
    for (found, right) in zip(found, right) { #expect(right == nil || found == right) }
    if name == "llama3" { try expectAnswers(found, tokenizer) }
  }

  /// Encoding all before each answer again would take a time that grows with its square.
  @Test(
    arguments: [
      ("mistral", "mistral-v0.3", true), ("llama2", "mistral-v1", true),
      ("llama2", "chatml", false),
      ("tinyllama", "mistral-v1", true), ("qwen2", "chatml", true), ("qwen2", "mistral-v1", false),
    ])
  func aTurnThatEndsWithATokenIsFoundWithoutASearch(
    name: String, template: String, isFound: Bool
  ) throws {
    #expect(TokenEncoder.maximumSearchByteCount == 64 << 20)
    let path = dataSample("../tokenizers/\(name).json")
    let tokenizer = ExampleTokenizer(
      encoder: try TokenEncoder(Tokenizer(contentsOf: path), eos: nil, searchLimit: 20),
      template: try ChatTemplate(named: template), tokens: SpecialTokens(bos: "<s>", eos: "</s>"),
      length: .init(maximum: 1 << 20, truncates: false))
    if isFound {
      #expect(try examples("chats.jsonl", tokenizer).count == 4)
    } else {
      let error = #expect(throws: PeftoolError.self) { try examples("chats.jsonl", tokenizer) }
      #expect(
        error?.reason
          == "line 1: a conversation too long to find its answers in, whose turns end with no token "
          + "of their own; expected a tokenizer that has the chat template's tokens")
    }
  }

  @Test func withoutATokenOfItsOwnATurnsEndIsFoundAllTheSame() throws {
    // Llama 3's tokens are none of this tokenizer's: they are text like any other.
    let tokenizer = try exampleTokenizer("llama3")
    try expectAnswers(examples("chats.jsonl", tokenizer).all, tokenizer)
  }

  /// Expects of a tokenizer of bytes that the answers' tokens are those of which some bytes are an
  /// answer's.
  private func expectAnswers(_ found: [Labelled], _ tokenizer: ExampleTokenizer) throws {
    let encoder = tokenizer.encoder.tokenizer
    let template = try #require(tokenizer.template)
    let chats = try chats()
    #expect(found.count == chats.count)
    for (example, chat) in zip(found, chats) {
      let segments = try template.segments(chat, tokens: tokenizer.tokens)
      #expect(example.ids == (try encoder.encode(segments.text, addingSpecialTokens: false)))
      var (place, right) = (0, [Bool]())
      let isAnswer = segments.segments.flatMap { segment in
        segment.text.utf8.map { _ in segment.isAssistant }
      }
      for id in example.ids {
        // A token of bytes has a character for each.
        let count = try #require(encoder.token(id)).unicodeScalars.count
        right.append(isAnswer[place..<(place + count)].contains(true))
        place += count
      }
      #expect(place == isAnswer.count)
      #expect(example.labels.map { $0 != TokenExamples.ignored } == right)
    }
  }

  private func chats() throws -> [[ChatMessage]] {
    var lines = JSONLines(try DataInput(opening: dataSample("chats.jsonl")))
    var chats: [[ChatMessage]] = []
    while let example = try lines.next() {
      if case .messages(let messages) = example.content { chats.append(messages) }
    }
    return chats
  }

  @Test(arguments: [4, 5, 16, 1000])
  func aPlainTextIsOneStreamCutToLength(length: Int) throws {
    let stream = try #require(golden).array(at: "story").map { Int32(try $0.int(named: "id")) }
    let found = try examples("story.txt", exampleTokenizer(maximum: length)).all
    #expect(found.allSatisfy { $0.ids == $0.labels })
    #expect(found.dropLast().allSatisfy { $0.ids.count == length })
    let rest = stream.count % length
    #expect(found.flatMap(\.ids) == Array(rest == 1 ? stream.dropLast() : stream[...]))
  }

  @Test func aTokenizerThatEndsTextsItselfIsNotHelped() throws {
    let file = try String(contentsOfFile: dataSample("tokenizer.json"), encoding: .utf8)
    let end = #"{"SpecialToken":{"id":"</s>","type_id":0}}"#
    let both = file.replacingOccurrences(
      of: #"{"Sequence":{"id":"A","type_id":0}}]"#,
      with: #"{"Sequence":{"id":"A","type_id":0}},"# + end + "]"
    ).replacingOccurrences(
      of: #""special_tokens":{"#,
      with: #""special_tokens":{"</s>":{"id":"</s>","ids":[1],"tokens":["</s>"]},"#)
    let tokenizer = ExampleTokenizer(
      encoder: try TokenEncoder(Tokenizer(parsing: Array(both.utf8)), eos: "</s>"), template: nil,
      tokens: .init(), length: .init(maximum: 99, truncates: true))
    let (ids, labels) = try tokenizer.tokens(of: .completion(prompt: "x", completion: "yz"))
    let plain = try #require(smallTokenizer).encode("xyz")
    #expect(ids == plain + [1] && labels == [-100, -100] + plain.dropFirst(2) + [1])
  }

  /// As with GPT-2 and its like, of which one token begins and ends texts.
  @Test func aBeginningThatIsTheEndTokenIsNoEnd() throws {
    let file = try String(contentsOfFile: dataSample("tokenizer.json"), encoding: .utf8)
    let tokenizer = ExampleTokenizer(
      encoder: try TokenEncoder(Tokenizer(parsing: Array(file.utf8)), eos: "<s>"), template: nil,
      tokens: .init(), length: .init(maximum: 99, truncates: true))
    let plain = try #require(smallTokenizer).encode("xyz", addingSpecialTokens: false)
    #expect(try tokenizer.tokens(of: .text("xyz")).ids == [0] + plain + [0])
  }

  /// TRL looks at the completion alone.
  @Test func anEndThatThePromptHasIsNoneOfTheCompletion() throws {
    let tokenizer = try exampleTokenizer(nil)
    let small = try #require(smallTokenizer)
    let (ids, labels) = try tokenizer.tokens(of: .completion(prompt: "x</s>", completion: ""))
    #expect(try ids == small.encode("x</s>") + [1] && labels.suffix(2) == [-100, 1])
    let cut = try tokenizer.tokens(of: .completion(prompt: "x</", completion: "s>"))
    #expect(cut.ids == (try small.encode("x</s></s>")))
  }

  @Test func aPlainTextIsAsLongAsATokenizerTakes() {
    #expect(TokenExamples.maximumTextByteCount == Tokenizer.maximumTextByteCount)
  }

  @Test func anEndThatTheTokenizerHasNotIsRefused() throws {
    let error = #expect(throws: PeftoolError.self) { try exampleTokenizer(eos: "<|end|>") }
    #expect(
      error?.reason == "tokenizer_config.json names the eos_token '<|end|>', which tokenizer.json "
        + "has not")
  }

  @Test func whatIsTooLongIsAnErrorOrCutAndCounted() throws {
    let text = #"{"text": "abcdef"}"# + "\n\n" + #"{"text": "abcdefghijkl"}"# + "\n"
    let error = #expect(throws: PeftoolError.self) {
      try TokenExamples.read(text, .jsonl, exampleTokenizer(maximum: 8))
    }
    #expect(
      error?.description
        == "f: line 3: has 14 tokens, expected at most 8 (--max-length); --truncate cuts what is "
        + "longer")
    let cut = try TokenExamples.read(text, .jsonl, exampleTokenizer(maximum: 8, truncates: true))
    #expect(cut.count == 2 && cut.truncatedCount == 1 && cut.cutTokenCount == 6)
    #expect(cut.all.map(\.ids.count) == [8, 8] && cut.droppedCount == 0)
    #expect(cut.learntTokenCount == 14)
  }

  @Test func anExampleWithoutALabelLeftIsDroppedAndCounted() throws {
    let text =
      #"{"prompt": "abcdefgh", "completion": "ij"}"# + "\n" + #"{"prompt": "a", "completion": "b"}"#
    let cut = try TokenExamples.read(text, .jsonl, exampleTokenizer(maximum: 9, truncates: true))
    #expect(cut.count == 1 && cut.droppedCount == 1 && cut.truncatedCount == 0)
    #expect(cut.cutTokenCount == 3)
  }

  @Test(
    arguments: [
      (
        #"{"messages": [{"role": "user", "content": "x"}]}"#, "chatml",
        "line 1: has nothing to learn: no token behind the first has a label"
      ),
      (
        #"{"messages": [{"role": "user", "content": "x"}]}"#, nil,
        "line 1: has messages, and the model has no chat template; --chat-template names one: "
          + ChatTemplate.names.joined(separator: ", ")
      ),
      (
        #"{"messages": [{"role": "assistant", "content": "x"}]}"#, "llama2",
        "line 1: messages[0].role is assistant, expected user: the chat template llama2 takes a system "
          + "message first and then user and assistant in turn"
      ),
      ("", "chatml", "has no examples, expected at least one"),
      ("\n  \r\n\t\n", "chatml", "has no examples, expected at least one"),
    ] as [(String, String?, String)])
  func refusals(text: String, template: String?, reason: String) throws {
    let error = #expect(throws: PeftoolError.self) {
      try TokenExamples.read(text, .jsonl, exampleTokenizer(template))
    }
    #expect(error?.description == "f: \(reason)")
  }

  @Test func withoutAnEndATextIsRefused() throws {
    let error = #expect(throws: PeftoolError.self) {
      try TokenExamples.read("x", .txt, exampleTokenizer(eos: nil))
    }
    #expect(
      error?.description
        == "f: the tokenizer names no eos_token, with which each text is to end")
  }

  @Test func aTextThatIsNoUTF8IsRefusedWithTheByte() throws {
    var examples = TokenExamples()
    let error = #expect(throws: PeftoolError.self) {
      try examples.append(
        DataInput([0xEF, 0xBB, 0xBF, 0x61, 0xFF], path: "f"), format: .txt,
        tokenizer: exampleTokenizer())
    }
    #expect(error?.description == "f: byte 4: the text is no UTF-8")
    #expect(throws: PeftoolError.self) { try TokenExamples.read("", .txt, exampleTokenizer()) }
  }
}
