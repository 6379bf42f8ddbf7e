import Examples
import Files
import Fixtures
import Testing

private func read(_ bytes: [UInt8]) throws -> [Example] {
  var lines = JSONLines(DataInput(bytes, path: "f"))
  var found: [Example] = []
  while let example = try lines.next() { found.append(example) }
  return found
}

private func read(_ text: String) throws -> [Example] { try read(Array(text.utf8)) }

private let text = Example(.text("a"), line: 1)

@Suite struct JSONLinesTests {
  @Test(arguments: [
    #"{"text": "a"}"#, #"{"text": "a"}"# + "\n", #"{"text": "a"}"# + "\r\n",
    "\u{FEFF}" + #"{"text": "a"}"#, #"{"id": 3, "text": "a", "prompt": null, "messages": null}"#,
  ])
  func aLineIsAnExample(line: String) throws {
    #expect(try read(line) == [text])
  }

  @Test func linesAreNumberedThroughBlankOnes() throws {
    let found = try read("\n{\"text\": \"a\"}\n \t\r\n{\"text\": \"\"}\n\n")
    #expect(found == [Example(.text("a"), line: 2), Example(.text(""), line: 4)])
  }

  @Test func theOtherKinds() throws {
    #expect(
      try read(#"{"completion": "b", "prompt": "a\n"}"#)
        == [Example(.completion(prompt: "a\n", completion: "b"), line: 1)])
    let messages =
      #"{"messages": [{"role": "user", "content": "a", "name": "x", "tool_calls": null},"#
      + #"{"role": "assistant", "content": "", "thinking": "b", "reasoning": "c"}]}"#
    #expect(
      try read(messages)
        == [
          Example(
            .messages([ChatMessage(.user, "a"), ChatMessage(.assistant, "", reasoning: "b")]),
            line: 1)
        ])
  }

  @Test(arguments: [
    ("{\"text\": 'a'}", "byte 9: line 1: found ''', expected a value"),
    ("{\"text\": \"a\"}\n{\"text\": }", "byte 23: line 2: found '}', expected a value"),
    ("\u{FEFF}{\"text\": }", "byte 12: line 1: found '}', expected a value"),
    ("{\"text\": \"a\"} {}", "byte 14: line 1: found '{', expected the end of the text"),
    ("{\"text\": \"a\", \"text\": \"b\"}", "byte 14: line 1: key \"text\" stands twice"),
    (
      "[]",
      "line 1: is an array of 0, expected an object with text, or prompt and completion, or "
        + "messages"
    ),
    (
      "{\"txt\": \"a\"}",
      "line 1: has no text, or prompt and completion, or messages, one of which is expected"
    ),
    ("{\"text\": 3}", "line 1: text is 3, expected a string"),
    ("{\"prompt\": \"a\"}", "line 1: completion is missing, expected a string"),
    ("{\"completion\": \"a\"}", "line 1: prompt is missing, expected a string"),
    (
      "{\"prompt\": [], \"completion\": \"\"}",
      "line 1: prompt is an array of 0, expected a string"
    ),
    (
      "{\"text\": \"a\", \"messages\": []}",
      "line 1: has text beside messages, expected one of them"
    ),
    (
      "{\"text\": \"a\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}",
      "line 2: has prompt and completion, line 1 has text: expected one kind a file"
    ),
    ("{\"messages\": {}}", "line 1: messages is an object of 0, expected an array"),
    ("{\"messages\": []}", "line 1: has no messages, expected at least one"),
    ("{\"messages\": [\"a\"]}", "line 1: messages[0] is \"a\", expected an object"),
    (
      "{\"messages\": [{\"content\": \"a\"}]}",
      "line 1: messages[0].role is missing, expected a string"
    ),
    (
      "{\"messages\": [{\"role\": \"user\", \"content\": null}]}",
      "line 1: messages[0].content is missing, expected a string"
    ),
    (
      "{\"messages\": [{\"role\": \"user\", \"content\": [1]}]}",
      "line 1: messages[0].content is an array of 1, expected a string"
    ),
    (
      "{\"messages\": [{\"role\": \"tool\\n\", \"content\": \"a\"}]}",
      "line 1: messages[0].role is 'tool\\u{a}', expected system, user or assistant"
    ),
    (
      "{\"messages\": [{\"role\": \"user\", \"content\": \"\", \"tool_calls\": []}]}",
      "line 1: messages[0] has tool_calls, and calls of tools have no place in a chat template "
        + "here"
    ),
    (
      "{\"messages\": [{\"role\": \"user\", \"content\": \"\", \"reasoning\": 1}]}",
      "line 1: messages[0].reasoning is 1, expected a string"
    ),
  ])
  func refusals(line: String, message: String) throws {
    let error = #expect(throws: PeftoolError.self) { try read(line) }
    #expect(error?.description == "f: " + message)
  }

  @Test func bytesThatAreNoTextAreRefusedWithTheirPlace() throws {
    let good = Array("{\"text\": \"a\"}\n".utf8)
    let error = #expect(throws: PeftoolError.self) {
      try read(good + Array("{\"text\": \"".utf8) + [0xFF] + Array("\"}".utf8))
    }
    #expect(error?.description == "f: byte 24: line 2: the text is no UTF-8")
  }

  @Test func aLineThatIsTooLongIsRefused() throws {
    #expect(LineReader.maximumByteCount == 16 << 20)
    var lines = LineReader(DataInput(Array("abc\r\nabcd\nabcde\n".utf8), path: "f"), limit: 4)
    #expect(try lines.next()?.bytes.count == 3)
    #expect(try lines.next()?.bytes.count == 4)
    let error = #expect(throws: PeftoolError.self) { _ = try lines.next()?.number }
    #expect(error?.description == "f: line 3: more than 4 bytes, expected at most so many")
  }

  /// Whether it ends in the block that is there, in a later one, or not at all.
  @Test(arguments: [5, 1 << 18, 700_000])
  func behindALineThatIsTooLongTheReaderGoesOn(count: Int) throws {
    let long = String(repeating: "x", count: count)
    let scratch = try Scratch()
    let path = try scratch.write("f", "ab\n\(long)\nabcd\n\(long)")
    var lines = LineReader(try DataInput(opening: path), limit: 4)
    var found: [String] = []
    while let result = try lines.nextResult() {
      switch result {
      case .success(let line):
        #expect(line.number == lines.number)
        found.append(String(decoding: line.bytes, as: UTF8.self))
      case .failure(let error): found.append(error.reason)
      }
    }
    let refused = "more than 4 bytes, expected at most so many"
    #expect(found == ["ab", "line 2: \(refused)", "abcd", "line 4: \(refused)"])
  }

  @Test func aLineWithoutAnEndIsRefusedBeforeItIsRead() throws {
    let bytes = [UInt8](repeating: 0x61, count: LineReader.maximumByteCount + 1)
    let error = #expect(throws: PeftoolError.self) { try read(bytes) }
    #expect(error?.reason == "line 1: more than 16777216 bytes, expected at most so many")
  }

  @Test(arguments: 0..<20)
  func linesOfAFileAreThoseOfItsText(seed: Int) throws {
    var random = SplitMix64(seed: seed)
    let pieces = ["\n", "\r\n", "\r", "a", String(repeating: "x", count: 300_000), "é"]
    let text = (0..<Int.random(in: 0...12, using: &random)).map { _ in
      pieces[Int.random(in: pieces.indices, using: &random)]
    }.joined()
    let scratch = try Scratch()
    var lines = LineReader(try DataInput(opening: scratch.write("f", text)))
    var right = text.utf8.split(separator: 0x0A, omittingEmptySubsequences: false)
    if right.last?.isEmpty == true { right.removeLast() }
    var (number, offset) = (0, 0)
    while let line = try lines.next() {
      let bytes = Array(right[number])
      #expect(line.bytes == (bytes.last == 0x0D ? bytes.dropLast() : bytes))
      #expect(line.number == number + 1 && line.offset == offset)
      offset += bytes.count + 1
      number += 1
    }
    #expect(number == right.count)
  }

  @Test func aFileThatIsNotThereIsAnError() {
    let error = #expect(throws: PeftoolError.self) { try DataInput(opening: "/nowhere/a.jsonl") }
    #expect(error?.kind == .io && error?.path == "/nowhere/a.jsonl")
  }

  @Test func formatsAreThoseOfTheNames() throws {
    let names: [(String, DataFormat)] = [
      ("-", .jsonl), ("a/b.jsonl", .jsonl), ("b.ndjson", .jsonl), ("b.csv", .csv), ("b.txt", .txt),
      ("b.safetensors", .safetensors),
    ]
    for (name, format) in names { #expect(try DataFormat(ofPath: name) == format) }
    let error = #expect(throws: PeftoolError.self) { try DataFormat(ofPath: "a.csv/b.json") }
    #expect(
      error?.description
        == "a.csv/b.json: the name does not say what the data is, expected one that ends with "
        + ".jsonl, .ndjson, .csv, .txt, .safetensors; --data-format says it for any name")
  }
}
