import Files
import Fixtures
import JSON
import Testing

private func parse(_ text: String) throws -> JSON { try JSON(parsing: Array(text.utf8)) }

/// The text is refused with this reason at this offset.
private func assertRejects(
  _ text: String, _ reason: String, at offset: Int,
  sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(
    throws: PeftoolError(.damaged, reason, offset: offset), sourceLocation: sourceLocation
  ) { try parse(text) }
}

@Suite struct ReadingTests {
  @Test func aKeyThatStandsTwiceIsRefused() {
    assertRejects(#"{"a":1,"a":2}"#, #"key "a" stands twice"#, at: 7)
    assertRejects(#"{"a":1,"\u0061":2}"#, #"key "a" stands twice"#, at: 7)
    assertRejects(#"[{"b":{"a":1,"c":[],"a":1}}]"#, #"key "a" stands twice"#, at: 20)
  }

  @Test func keysThatOnlyLookEqualAreTwo() throws {
    let value = try parse("{\"\u{E9}\":1,\"e\u{301}\":2,\"b\":{\"\u{E9}\":3}}")
    #expect(value["\u{E9}"] == .number("1"))
    #expect(value["e\u{301}"] == .number("2"))
  }

  @Test func keysOfDifferentObjectsMayBeEqual() throws {
    let value = try parse(#"{"a":{"a":{"a":1}},"b":[{"a":2},{"a":3}]}"#)
    #expect(value.value(at: ["a", "a", "a"]) == .number("1"))
  }

  @Test(arguments: [
    (#""\ud800""#, 1), (#""\udc00""#, 1), (#""ab\ud83d\u0041""#, 3), (#""\ud83d x""#, 1),
    (#""\ud83d\ud83d""#, 1), (#""\udE00\ud83d""#, 1), (#"{"\udfff":1}"#, 2),
  ])
  func aLoneSurrogateIsRefused(text: String, offset: Int) {
    assertRejects(text, #"a lone surrogate, expected a pair such as \ud83d\ude00"#, at: offset)
  }

  @Test(arguments: ["NaN", "Infinity", "inf", "undefined", "None", "True", "'a'", "#", "+1"])
  func whatIsNoValueIsRefused(text: String) {
    assertRejects("[\(text)]", "found '\(text.prefix(1))', expected a value", at: 1)
  }

  @Test func minusInfinityIsRefused() {
    assertRejects("-Infinity", "found 'I', expected a digit", at: 1)
  }

  @Test func commentsAreRefused() {
    assertRejects("// no\n1", "found '/', expected a value", at: 0)
    assertRejects("[1 /* no */]", "found '/', expected ',' or ']'", at: 3)
    assertRejects("{} # no", "found '#', expected the end of the text", at: 3)
  }

  @Test func trailingCommasAreRefused() {
    assertRejects("[1,]", "found ']', expected a value", at: 3)
    assertRejects(#"{"a":1,}"#, "found '}', expected a string", at: 7)
    assertRejects("[,1]", "found ',', expected a value", at: 1)
    assertRejects("[1,,2]", "found ',', expected a value", at: 3)
  }

  @Test(arguments: [
    ("01", "found '1', expected the end of the text", 1),
    ("-01", "found '1', expected the end of the text", 2),
    (".5", "found '.', expected a value", 0),
    ("1.", "found the end of the text, expected a digit", 2),
    ("1.e5", "found 'e', expected a digit", 2),
    ("1e", "found the end of the text, expected a digit", 2),
    ("1e+", "found the end of the text, expected a digit", 3),
    ("-", "found the end of the text, expected a digit", 1),
    ("--1", "found '-', expected a digit", 1),
    ("0x10", "found 'x', expected the end of the text", 1),
    ("1_000", "found '_', expected the end of the text", 1),
  ])
  func numbersFollowTheGrammar(text: String, reason: String, offset: Int) {
    assertRejects(text, reason, at: offset)
  }

  @Test func aNumberThatNoDoubleHoldsIsRefused() {
    assertRejects("[1e999]", "a number out of the range of doubles", at: 1)
    assertRejects("[-1e309]", "a number out of the range of doubles", at: 1)
    assertRejects(
      "[1" + String(repeating: "0", count: 400) + "]", "a number out of the range of doubles",
      at: 1)
  }

  @Test(arguments: [
    "0", "-0", "4", "4.0", "4e0", "4E+0", "1e-7", "18446744073709551620",
    "-9223372036854775809", "0.1000000000000000055511151231257827", "1e308",
  ])
  func numbersKeepTheirText(text: String) throws {
    #expect(try parse(text) == .number(text))
    let around = try parse(#"{"-1\"2":["3\\",\#(text),{"4":\#(text)}],"z":7}"#)
    #expect(
      around["-1\"2"]
        == .array([
          .string("3\\"), .number(text), .object([.init("4", .number(text))]),
        ]))
    #expect(around["z"] == .number("7"))
  }

  @Test func stringsEndAndHaveNoRawControlCharacters() {
    assertRejects(
      "\"a\nb\"",
      "found byte 0x0a, expected an escape: control characters may not "
        + "stand in a string", at: 2)
    assertRejects(
      "\"a\u{0}\"",
      "found byte 0x00, expected an escape: control characters may not "
        + "stand in a string", at: 2)
    assertRejects("\"abc", "found the end of the text, expected '\"'", at: 4)
    assertRejects(#""a\""#, "found the end of the text, expected '\"'", at: 4)
  }

  @Test(arguments: [
    (#""\x41""#, "found 'x', expected one of \" \\ / b f n r t u after '\\'", 2),
    (#""\u12G4""#, "found 'G', expected a hexadecimal digit", 5),
    (#""\u12"#, "found the end of the text, expected a hexadecimal digit", 5),
    ("\"\\", "found the end of the text, expected one of \" \\ / b f n r t u after '\\'", 2),
  ])
  func escapesFollowTheGrammar(text: String, reason: String, offset: Int) {
    assertRejects(text, reason, at: offset)
  }

  @Test func escapesAreRead() throws {
    #expect(
      try parse(#""\"\\\/\b\f\n\r\t\u00e9\u0000\ud83d\ude00""#)
        == .string("\"\\/\u{8}\u{C}\n\r\té\u{0}😀"))
  }

  @Test func nulMayStandInAValueButNotInAKey() throws {
    #expect(try parse(#"{"a":"x\u0000y"}"#)["a"] == .string("x\u{0}y"))
    assertRejects(#"{"a":1,"b\u0000c":1}"#, "a key with U+0000 in it", at: 7)
  }

  @Test(arguments: [
    ("", "found the end of the text, expected a value", 0),
    ("  ", "found the end of the text, expected a value", 2),
    ("{} {}", "found '{', expected the end of the text", 3),
    ("1\u{0}", "found byte 0x00, expected the end of the text", 1),
    ("\u{FEFF}{}", "found byte 0xef, expected a value", 0),
    ("\u{A0}1", "found byte 0xc2, expected a value", 0),
    ("\u{C}1", "found byte 0x0c, expected a value", 0),
    ("nul", "found the end of the text, expected 'null'", 3),
    ("tru]", "found ']', expected 'true'", 3),
    ("[1 2]", "found '2', expected ',' or ']'", 3),
    ("[1", "found the end of the text, expected ',' or ']'", 2),
    (#"{"a" 1}"#, "found '1', expected ':'", 5),
    (#"{"a":1 "b":2}"#, "found '\"', expected ',' or '}'", 7),
    (#"{1:2}"#, "found '1', expected a string", 1),
    (#"{"a":}"#, "found '}', expected a value", 5),
    ("[1}", "found '}', expected ',' or ']'", 2),
  ])
  func structureFollowsTheGrammar(text: String, reason: String, offset: Int) {
    assertRejects(text, reason, at: offset)
  }

  @Test(
    arguments: [
      ([0x22, 0xFF, 0x22], 1), ([0x22, 0xC0, 0x80, 0x22], 1), ([0x22, 0xED, 0xA0, 0x80, 0x22], 1),
      ([0x22, 0xF4, 0x90, 0x80, 0x80, 0x22], 1), ([0x22, 0x41, 0xE2, 0x82], 2),
    ] as [([UInt8], Int)])
  func whatIsNoUTF8IsRefused(bytes: [UInt8], offset: Int) {
    #expect(throws: PeftoolError(.damaged, "the text is no UTF-8", offset: offset)) {
      try JSON(parsing: bytes)
    }
  }

  @Test func whiteSpaceStandsBetweenTokens() throws {
    #expect(
      try parse(" \t\r\n{ \"a\" :\n[ 1 , true ] , \"b\" : null }\n")
        == .object([.init("a", .array([.number("1"), .bool(true)])), .init("b", .null)]))
  }

  @Test func membersKeepTheirOrder() throws {
    let text = #"{"b":1,"":2,"a":3,"ab":4}"#
    #expect(try parse(text).text() == text)
  }

  @Test func sixtyFourLevelsAreTakenAndNoMore() throws {
    let deep = String(repeating: "[", count: 64) + String(repeating: "]", count: 64)
    #expect(try parse(deep).text() == deep)
    let objects = String(repeating: #"{"a":"#, count: 64) + "1" + String(repeating: "}", count: 64)
    #expect(try parse(objects).text() == objects)
    assertRejects("[\(deep)]", "is nested deeper than 64 levels", at: 64)
    assertRejects(
      String(repeating: #"{"a":"#, count: 2_000_000), "is nested deeper than 64 levels", at: 320)
  }

  @Test func limitsAreKept() throws {
    let limits = JSON.Limits(byteCount: 12, valueCount: 4, depth: 2)
    #expect(
      try JSON(
        parsing: Array("[1,[2,3]]".utf8),
        limits: .init(
          byteCount: 9, valueCount: 5, depth: 2)
      ).text() == "[1,[2,3]]")
    #expect(
      throws: PeftoolError(
        .unsupported, "has more JSON values than peftool takes", offset: 6)
    ) { try JSON(parsing: Array("[1,[2,3]]".utf8), limits: limits) }
    #expect(throws: PeftoolError(.damaged, "is nested deeper than 2 levels", offset: 2)) {
      try JSON(parsing: Array("[[[1]]]".utf8), limits: limits)
    }
    #expect(throws: PeftoolError(.unsupported, "13 bytes of JSON, expected at most 12")) {
      try JSON(parsing: Array("[1,2         ".utf8), limits: limits)
    }
  }

  @Test(arguments: 0..<50)
  func whatIsWrittenIsReadAgain(seed: Int) throws {
    var random = SplitMix64(seed: seed)
    let value = randomJSON(&random, depth: 5)
    let text = value.text()
    let read = try parse(text)
    #expect(read == value)
    // Equal strings may differ in their bytes.
    #expect(Array(read.text().utf8) == Array(text.utf8))
    #expect(try Array(parse(value.text(indent: 2, isASCII: true)).text().utf8) == Array(text.utf8))
  }
}

@Suite struct FileReadingTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  @Test func errorsNameTheFile() throws {
    let path = try scratch.write("a.json", "[1,]")
    #expect(
      throws: PeftoolError(
        .damaged, "found ']', expected a value", offset: 3, path: path)
    ) { try JSON(opening: path) }
  }

  @Test func aFileOverTheLimitIsNotRead() throws {
    let path = try scratch.write("a.json", "[1,2,3]")
    #expect(
      throws: PeftoolError(
        .unsupported, "7 bytes of JSON, expected at most 6", path: path)
    ) { try JSON(opening: path, limits: .init(byteCount: 6, valueCount: 9, depth: 9)) }
  }

  @Test func aFileIsRead() throws {
    let path = try scratch.write("a.json", "{\"r\": 8}\n")
    #expect(try JSON(opening: path).int(at: "r") == 8)
  }
}
