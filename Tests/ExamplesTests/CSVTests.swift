import Examples
import Files
import Fixtures
import Testing

private func records(_ bytes: [UInt8]) throws -> [CSVReader.Record] {
  var reader = CSVReader(DataInput(bytes, path: "f"))
  var found: [CSVReader.Record] = []
  while let record = try reader.next() { found.append(record) }
  return found
}

private func fields(_ text: String) throws -> [[String]] {
  try records(Array(text.utf8)).map(\.fields)
}

private func examples(_ text: String) throws -> [Example] {
  var reader = CSVExamples(DataInput(Array(text.utf8), path: "f"))
  var found: [Example] = []
  while let example = try reader.next() { found.append(example) }
  return found
}

@Suite struct CSVTests {
  @Test(arguments: [
    ("a,b\r\nc,d\r\n", [["a", "b"], ["c", "d"]]), ("a,b", [["a", "b"]]),
    ("a,\n,b\n,\n", [["a", ""], ["", "b"], ["", ""]]),
    ("\"a\",\"b,c\"\n", [["a", "b,c"]]), ("\"a\"\"b\"\r\n", [["a\"b"]]),
    ("\"x\r\ny\",z\r\n", [["x\r\ny", "z"]]), ("\"\"\n", [[""]]), ("\"\"", [[""]]),
    ("\"\"\"\"", [["\""]]), ("\n\r\na\n\n", [["a"]]), ("a\rb\n", [["a\rb"]]), ("a\r", [["a"]]),
    ("", []), ("\r\n", []), ("\u{FEFF}a,b\n", [["a", "b"]]), (" a , b \n", [[" a ", " b "]]),
    ("\"a\"\r\n\"b\"\n", [["a"], ["b"]]), ("é,\"日\"\n", [["é", "日"]]),
    ("a,\"b\"\r", [["a", "b"]]),
  ])
  func recordsAreThoseOfTheStandard(text: String, right: [[String]]) throws {
    #expect(try fields(text) == right)
  }

  @Test func linesAreCountedThroughQuotes() throws {
    let found = try records(Array("h\n\"a\n\nb\"\n\nc\n".utf8))
    #expect(found.map(\.line) == [1, 2, 6])
  }

  @Test(arguments: [
    (
      "a\nb\"c\n",
      "byte 3: line 2: a quote in a field without quotes around it, expected the field "
        + "in quotes and this one twice"
    ),
    ("\"a\"b\n", "byte 3: line 1: text behind a closing quote, expected a comma or the line's end"),
    (
      "\"a\"\rb\n",
      "byte 4: line 1: text behind a closing quote, expected a comma or the line's end"
    ),
    (
      "\"a\"\r,b\n",
      "byte 4: line 1: text behind a closing quote, expected a comma or the line's end"
    ),
    ("a\n\"b\n\n", "byte 2: line 2: a quote that is never closed"),
  ])
  func refusals(text: String, message: String) throws {
    let error = #expect(throws: PeftoolError.self) { try fields(text) }
    #expect(error?.description == "f: " + message)
  }

  @Test func bytesThatAreNoTextAreRefusedWithTheirPlace() throws {
    let error = #expect(throws: PeftoolError.self) {
      try records(Array("a\n\"\"\"".utf8) + [0xC3, 0x22])
    }
    #expect(error?.description == "f: byte 5: line 2: the text is no UTF-8")
  }

  @Test func aRecordThatIsTooLongIsRefused() throws {
    #expect(CSVReader.maximumByteCount == 16 << 20)
    var reader = CSVReader(DataInput(Array("abc\n\"\n\n\n\n".utf8), path: "f"), limit: 4)
    #expect(try reader.next()?.fields == ["abc"])
    let error = #expect(throws: PeftoolError.self) { _ = try reader.next()?.line }
    #expect(
      error?.description
        == "f: byte 4: line 2: a record of more than 4 bytes, expected at most so many")
  }

  @Test(arguments: 0..<50)
  func whatIsWrittenIsRead(seed: Int) throws {
    var random = SplitMix64(seed: seed)
    let pieces = ["a", ",", "\"", "\n", "\r\n", "\r", " ", "é", "\u{FEFF}"]
    let count = Int.random(in: 2...4, using: &random)
    let table = (0..<Int.random(in: 0...6, using: &random)).map { _ in
      (0..<count).map { _ in
        (0..<Int.random(in: 0...5, using: &random)).map { _ in
          pieces[Int.random(in: pieces.indices, using: &random)]
        }.joined()
      }
    }
    let end = Bool.random(using: &random) ? "\n" : "\r\n"
    let text = table.map { row in
      row.map { "\"" + $0.replacing("\"", with: "\"\"") + "\"" }.joined(separator: ",") + end
    }.joined()
    #expect(
      try fields(text).map { $0.map { Array($0.utf8) } } == table.map { $0.map { Array($0.utf8) } })
  }

  @Test func columnsAreFoundByTheirNames() throws {
    #expect(
      try examples("id,completion,prompt\n1,b,a\n")
        == [Example(.completion(prompt: "a", completion: "b"), line: 2)])
    #expect(
      try examples("text\n\"x\ny\"\nz\n")
        == [Example(.text("x\ny"), line: 2), Example(.text("z"), line: 4)])
  }

  @Test(arguments: [
    ("a,b\n1,2\n", "line 1: the header names 'a', 'b', expected text, or prompt and completion"),
    (
      "1,2,3,4,5,6,7,8,9\n",
      "line 1: the header names '1', '2', '3', '4', '5', '6', '7', '8' and "
        + "more, expected text, or prompt and completion"
    ),
    (
      "messages\n[]\n",
      "line 1: the header names 'messages', expected text, or prompt and completion"
    ),
    (
      "text,prompt\n",
      "line 1: the header names text beside prompt and completion, expected one of them"
    ),
    ("prompt,x\n", "line 1: the header names completion nowhere, expected it once"),
    ("text,text\n", "line 1: the header names text 2 times, expected it once"),
    ("text,b\n1\n", "line 2: 1 fields, expected 2 as the header has"),
    ("text,b\n1,2,3\n", "line 2: 3 fields, expected 2 as the header has"),
  ])
  func tablesThatDoNotFitAreRefused(text: String, reason: String) throws {
    let error = #expect(throws: PeftoolError.self) { try examples(text) }
    #expect(error?.description == "f: " + reason)
  }
}
