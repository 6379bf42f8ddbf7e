import Checkpoints
import Files
import Fixtures
import Tensors
import Testing

/// A good entry of eight bytes.
private let entry = #"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#

/// An entry with one value changed.
private func entry(
  dtype: String = #""F32""#, shape: String = "[2]", offsets: String = "[0,8]"
) -> String {
  #"{"dtype":\#(dtype),"shape":\#(shape),"data_offsets":\#(offsets)}"#
}

/// A header of this text before so many bytes is refused; `offset` counts from the text's start.
private func assertRejects(
  _ text: String, dataByteCount: Int = 8, _ reason: String, at offset: Int?,
  tensor: String? = nil, kind: PeftoolError.Kind = .damaged,
  sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(
    throws: PeftoolError(kind, reason, offset: offset.map { $0 + 8 }, tensor: tensor),
    sourceLocation: sourceLocation
  ) { try SafetensorsHeader(text: Array(text.utf8), dataByteCount: dataByteCount) }
}

/// One test a rule; `Formats/safetensors.md` lists them.
@Suite struct HeaderRefusalTests {
  @Test(arguments: 0...7) func aFileTooShortForALength(byteCount: Int) {
    #expect(
      throws: PeftoolError(
        .damaged,
        "the file has \(byteCount) bytes, a safetensors file has 8 before its header")
    ) {
      try SafetensorsHeader.byteCount(
        prefix: Array(repeating: 0, count: byteCount), fileByteCount: byteCount)
    }
  }

  @Test func aLengthPastTheEnd() {
    #expect(
      throws: PeftoolError(
        .damaged, "a header of 3 bytes, the file has 2 after byte 8", offset: 0)
    ) { try SafetensorsHeader.byteCount(prefix: [3, 0, 0, 0, 0, 0, 0, 0], fileByteCount: 10) }
  }

  @Test(
    arguments: [
      ([0x01, 0xE1, 0xF5, 0x05, 0, 0, 0, 0], "100000001"),
      ([0, 0, 0, 0, 0, 0, 0, 0x80], "9223372036854775808"),
      ([0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "18446744073709551615"),
    ] as [([UInt8], String)])
  func aLengthOverTheCap(prefix: [UInt8], count: String) {
    #expect(
      throws: PeftoolError(
        .damaged, "a header of \(count) bytes, expected at most 100000000", offset: 0)
    ) { try SafetensorsHeader.byteCount(prefix: prefix, fileByteCount: .max) }
  }

  @Test func aHeaderThatIsNoObject() {
    assertRejects("[]", "found an array, expected an object", at: 0)
    assertRejects("null", "found null, expected an object", at: 0)
    assertRejects("", "found the end of the text, expected a value", at: 0)
  }

  @Test func bytesThatAreNoUTF8() {
    #expect(throws: PeftoolError(.damaged, "the text is no UTF-8", offset: 10)) {
      try SafetensorsHeader(text: [0x7B, 0x22, 0xFF, 0x22], dataByteCount: 0)
    }
  }

  @Test func aHeaderThatIsCutShort() {
    assertRejects(
      #"{"a":{"dtype":"F32","sha"#, "found the end of the text, expected '\"'", at: 24,
      tensor: "a")
  }

  @Test func bytesAfterTheObject() {
    assertRejects("{\"a\":\(entry)}\u{0}", "found byte 0x00, expected the end of the text", at: 54)
    assertRejects("{\"a\":\(entry)}{}", "found '{', expected the end of the text", at: 54)
  }

  @Test func aNameThatStandsTwice() {
    assertRejects(
      #"{"a":\#(entry),"a":\#(entry)}"#, "stands twice in the header", at: 54, tensor: "a")
    assertRejects(
      #"{"a":\#(entry),"\u0061":\#(entry)}"#, "stands twice in the header", at: 54, tensor: "a")
  }

  @Test func aLoneSurrogateInAName() {
    assertRejects(
      #"{"\ud800":\#(entry)}"#, #"a lone surrogate, expected a pair such as \ud83d\ude00"#, at: 2)
  }

  @Test func metadataThatStandsTwice() {
    assertRejects(
      #"{"__metadata__":{},"__metadata__":{}}"#, dataByteCount: 0, "__metadata__ stands twice",
      at: 19)
    assertRejects(
      #"{"__metadata__":null,"__metadata__":{}}"#, dataByteCount: 0, "__metadata__ stands twice",
      at: 21)
  }

  @Test func metadataOtherThanStrings() {
    assertRejects(
      #"{"__metadata__":{"x":1}}"#, "__metadata__ has a number for \"x\", expected a string",
      at: 17)
    assertRejects(
      #"{"__metadata__":{"x":null}}"#, "__metadata__ has null for \"x\", expected a string",
      at: 17)
    assertRejects(#"{"__metadata__":[]}"#, "found an array, expected an object", at: 16)
  }

  @Test(arguments: ["1", "null", #""F32""#, "true"]) func anEntryThatIsNoObject(value: String) {
    let found = ["1": "a number", "null": "null", "true": "a boolean"][value] ?? "a string"
    assertRejects(
      "{\"a\":\(value)}", "found \(found), expected an object", at: 5, tensor: "a")
  }

  @Test func anEntryWithoutAField() {
    assertRejects(
      #"{"a":{"shape":[2],"data_offsets":[0,8]}}"#, "has no dtype", at: 1, tensor: "a")
    assertRejects(
      #"{"a":{"dtype":"F32","data_offsets":[0,8]}}"#, "has no shape", at: 1, tensor: "a")
    assertRejects(
      #"{"a":{"dtype":"F32","shape":[2]}}"#, "has no data_offsets", at: 1, tensor: "a")
  }

  @Test(arguments: [("dtype", #""F32""#), ("shape", "[2]"), ("data_offsets", "[0,8]")])
  func aFieldThatStandsTwice(field: String, value: String) {
    assertRejects(
      "{\"a\":{\"\(field)\":\(value),\"\(field)\":\(value)}}", "\(field) stands twice",
      at: 10 + field.utf8.count + value.utf8.count, tensor: "a")
  }

  @Test(arguments: [
    ("[]", 0), (#"["F32"]"#, 1), (#"["F32",[2]]"#, 2), (#"["F32",[2],[0,8],1]"#, 4),
  ])
  func anEntryOfTooFewOrTooManyValues(value: String, count: Int) {
    assertRejects(
      "{\"a\":\(value)}", "an array of \(count) values, expected dtype, shape and data_offsets",
      at: 5, tensor: "a")
  }

  @Test(arguments: ["F33", "f32", "bf16", "float32", "", "F8_E4M3 "])
  func aDTypeThatIsUnknown(dtype: String) {
    assertRejects(
      "{\"a\":\(entry(dtype: "\"\(dtype)\""))}",
      "dtype \"\(dtype)\" is none of safetensors 0.8", at: 14, tensor: "a",
      kind: .unsupported)
  }

  @Test func aDTypeThatIsNoName() {
    assertRejects(
      "{\"a\":\(entry(dtype: "32"))}", "found a number, expected a string", at: 14, tensor: "a")
    assertRejects(
      "{\"a\":\(entry(dtype: #"{"F32":1}"#))}", "found a number, expected null", at: 21,
      tensor: "a")
    assertRejects(
      "{\"a\":\(entry(dtype: "{}"))}", "dtype is an object of 0, expected a name", at: 14,
      tensor: "a")
  }

  @Test(arguments: [
    "2.0", "2e0", "-2", "-0", "9223372036854775808", "18446744073709551618",
  ])
  func aSizeThatIsNoInteger(size: String) {
    assertRejects(
      "{\"a\":\(entry(shape: "[\(size)]"))}",
      "shape has \(size), expected an integer from 0 to 2^63 - 1", at: 29, tensor: "a")
    assertRejects(
      "{\"a\":\(entry(offsets: "[0,\(size)]"))}",
      "data_offsets has \(size), expected an integer from 0 to 2^63 - 1", at: 50, tensor: "a")
  }

  @Test(arguments: [
    (#""2""#, "a string"), ("true", "a boolean"), ("null", "null"), ("[2]", "an array"),
  ])
  func aSizeThatIsNoNumber(size: String, found: String) {
    assertRejects(
      "{\"a\":\(entry(shape: "[\(size)]"))}", "found \(found), expected a number", at: 29,
      tensor: "a")
  }

  @Test(arguments: [("[]", 0), ("[0]", 1), ("[0,8,8]", 3)])
  func offsetsThatAreNoPair(offsets: String, count: Int) {
    assertRejects(
      "{\"a\":\(entry(offsets: offsets))}", "data_offsets has \(count) numbers, expected 2", at: 47,
      tensor: "a")
  }

  @Test func offsetsTheWrongWay() {
    assertRejects(
      "{\"a\":\(entry(offsets: "[8,0]"))}", "data_offsets [8, 0] end before they begin", at: 1,
      tensor: "a")
  }

  @Test func tensorsThatOverlap() {
    assertRejects(
      "{\"a\":\(entry),\"b\":\(entry)}",
      "data_offsets begin at 0, expected 8: two tensors overlap", at: 54, tensor: "b")
    assertRejects(
      "{\"a\":\(entry),\"b\":\(entry(offsets: "[4,12]"))}", dataByteCount: 12,
      "data_offsets begin at 4, expected 8: two tensors overlap", at: 54, tensor: "b")
  }

  @Test func bytesThatNoTensorHas() {
    assertRejects(
      "{\"a\":\(entry(offsets: "[4,12]"))}", dataByteCount: 12,
      "data_offsets begin at 4, expected 0: no tensor has the bytes between", at: 1, tensor: "a")
    assertRejects(
      "{\"b\":\(entry(offsets: "[9,17]")),\"a\":\(entry)}", dataByteCount: 17,
      "data_offsets begin at 9, expected 8: no tensor has the bytes between", at: 1, tensor: "b")
  }

  @Test(arguments: [("[3]", 12), ("[1]", 4), ("[]", 4), ("[0]", 0), ("[2,2]", 16)])
  func aShapeThatTheOffsetsDoNotFit(shape: String, byteCount: Int) {
    let text = shape.split(separator: ",").joined(separator: ", ")
    assertRejects(
      "{\"a\":\(entry(shape: shape))}",
      "F32 of shape \(text) needs \(byteCount) bytes, data_offsets give 8", at: 1, tensor: "a")
  }

  @Test(arguments: [
    "[8589934592, 8589934592]", "[8589934592, 8589934592, 0]", "[4611686018427387904]",
    "[9223372036854775807, 2]",
  ])
  func aShapeThatOverflows(shape: String) {
    assertRejects(
      "{\"a\":\(entry(shape: shape))}", "shape \(shape) has more elements than can be counted",
      at: 1, tensor: "a")
  }

  @Test(arguments: [("F4", 3, 1), ("F6_E2M3", 3, 2), ("F6_E3M2", 1, 0)])
  func elementsThatEndInsideAByte(dtype: String, count: Int, byteCount: Int) {
    assertRejects(
      "{\"a\":\(entry(dtype: "\"\(dtype)\"", shape: "[\(count)]", offsets: "[0,\(byteCount)]"))}",
      dataByteCount: byteCount, "\(dtype) of shape [\(count)] ends inside a byte", at: 1,
      tensor: "a")
  }

  @Test func dataThatIsCutShort() {
    assertRejects(
      "{\"a\":\(entry)}", dataByteCount: 7,
      "data_offsets end at 8, the file has 7 bytes after its header", at: 1, tensor: "a")
  }

  @Test func dataThatNoTensorHas() {
    assertRejects(
      "{\"a\":\(entry)}", dataByteCount: 9,
      "the tensors take 8 bytes, the file has 9 after its header", at: 62)
    assertRejects(
      "{}", dataByteCount: 1, "the tensors take 0 bytes, the file has 1 after its header", at: 2)
  }

  @Test func deepNesting() {
    let deep = String(repeating: "[", count: 126) + String(repeating: "]", count: 126)
    assertRejects(
      "{\"a\":{\"x\":\(deep),\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
      "is nested deeper than 127 levels", at: 135, tensor: "a")
  }

  @Test func moreValuesThanAreTaken() throws {
    // The object, the entry, its three fields, one size and two offsets: the last is one too many.
    let text = Array("{\"a\":\(entry)}".utf8)
    _ = try SafetensorsHeader(text: text, dataByteCount: 8, maximumValueCount: 8)
    #expect(
      throws: PeftoolError(
        .unsupported, "has more JSON values than peftool takes", offset: 58, tensor: "a")
    ) { try SafetensorsHeader(text: text, dataByteCount: 8, maximumValueCount: 7) }
  }

  @Test func whatIsNoHeaderAtAll() throws {
    // Found before the header's memory is taken.
    let scratch = try Scratch()
    let path = try scratch.write("a", [2, 0, 0, 0, 0, 0, 0, 0] + Array(" x".utf8))
    #expect(
      throws: PeftoolError(
        .damaged, "the header begins with byte 0x78, expected '{'", offset: 9, path: path)
    ) { try SafetensorsFile(opening: path) }
  }
}
