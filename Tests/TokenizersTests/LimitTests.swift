import Files
import Fixtures
import Foundation
import Testing

@testable import Tokenizers

/// One test for each cap.
@Suite struct LimitTests {
  @Test func theBytesOfAFile() throws {
    let scratch = try Scratch()
    let path = try scratch.write("large.json", "{")
    let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
    try file.truncate(atOffset: (32 << 20) + 1)
    #expect(
      throws: PeftoolError(
        .unsupported, "33554433 bytes, expected at most 33554432", path: path)
    ) { try Tokenizer(contentsOf: path) }
  }

  @Test func theLevelsOfAFile() {
    let text = String(repeating: "[", count: 100)
    #expect(
      Tree().setting("truncation", text).refusal()?.contains("nested deeper than 64") == true)
  }

  @Test func theValuesOfAFile() {
    let text = "[" + String(repeating: "0,", count: 2_000_000) + "0]"
    #expect(
      Tree().setting("truncation", text).refusal()?.contains("more JSON values") == true)
  }

  @Test func theAddedTokensOfAFile() {
    let token = """
      {"id": 0, "content": "a", "single_word": false, "lstrip": false, "rstrip": false,
      "normalized": false, "special": false}
      """
    let text = [String](repeating: token, count: 100_001).joined(separator: ",")
    let refusal = Tree().replacing("ADDED", text).refusal()
    #expect(refusal?.contains("has more than 100000 added tokens") == true)
  }

  @Test func theBytesOfAnAddedToken() throws {
    let most = String(repeating: "x", count: AddedToken.maximumByteCount)
    #expect(try Tree().adding((most, "")).tokenizer().encode(most) == [12])
    #expect(
      Tree().adding((most + "x", "")).refusal()?
        .hasSuffix("has 1025 bytes, expected at most 1024") == true)
  }

  @Test func theBytesOfAnAddedTokenAfterTheNormalizer() throws {
    let replace = #"{"type": "Replace", "pattern": {"String": "x"}, "content": "yy"}"#
    let tree = Tree().setting("normalizer", replace)
    let half = String(repeating: "x", count: AddedToken.maximumByteCount / 2)
    #expect(tree.adding((half, "normalized")).refusal() == nil)
    #expect(
      tree.adding((half + "x", "normalized")).refusal()?
        .hasSuffix("has after the normalizer 1026 bytes, expected at most 1024") == true)
  }

  @Test func theBytesOfAllAddedTokens() {
    func refusal(_ count: Int) -> String? {
      let tokens = (0..<count).map { number in
        let digits = String(number)
        return (String(repeating: "x", count: 1024 - digits.count) + digits, "")
      }
      return Tree().adding(all: tokens).refusal()
    }
    #expect(refusal(AddedVocabulary.maximumByteCount / 1024) == nil)
    #expect(
      refusal(AddedVocabulary.maximumByteCount / 1024 + 1)
        == "the added tokens have more than 4194304 bytes together")
  }

  @Test func theBytesOfATextToLookFor() {
    func replace(_ count: Int) -> String? {
      let text = String(repeating: "x", count: count)
      return Tree().setting(
        "normalizer", #"{"type": "Replace", "pattern": {"String": "\#(text)"}, "content": ""}"#
      ).refusal()
    }
    #expect(replace(TextPattern.maximumLiteralByteCount) == nil)
    #expect(
      replace(TextPattern.maximumLiteralByteCount + 1)
        == "normalizer.pattern: 1025 bytes to look for, expected at most 1024")
  }

  @Test(arguments: ["continuing_subword_prefix", "end_of_word_suffix"])
  func theBytesOfAnAffix(key: String) {
    func affix(_ count: Int) -> String? {
      let text = String(repeating: "x", count: count)
      return Tree().replacing(#"[["a", "b"]]"#, "[]").setting(key, "\"\(text)\"").refusal()
    }
    #expect(affix(BytePairEncoding.maximumAffixByteCount) == nil)
    #expect(
      affix(BytePairEncoding.maximumAffixByteCount + 1)
        == "model.\(key) has 65 bytes, expected at most 64")
  }

  @Test func theTextsInATemplate() {
    func template(_ count: Int) -> String? {
      let texts = [String](repeating: #"{"Sequence": {"id": "A", "type_id": 0}}"#, count: count)
      return Tree().setting(
        "post_processor",
        """
        {"type": "TemplateProcessing", "single": [\(texts.joined(separator: ","))], "pair": [],
        "special_tokens": {}}
        """
      ).refusal()
    }
    #expect(template(PostProcessor.maximumTextCount) == nil)
    #expect(
      template(PostProcessor.maximumTextCount + 1)
        == "post_processor.single has the text 17 times, expected at most 16")
  }

  @Test func theTokensOfATemplate() {
    func template(_ count: Int, idsEach: Int = 1) -> String? {
      let token = #"{"SpecialToken": {"id": "h", "type_id": 0}}"#
      let elements = [String](repeating: token, count: count).joined(separator: ",")
      let ids = [String](repeating: "7", count: idsEach).joined(separator: ",")
      return Tree().setting(
        "post_processor",
        """
        {"type": "TemplateProcessing", "single": [\(elements)], "pair": [],
        "special_tokens": {"h": {"id": "h", "ids": [\(ids)], "tokens": []}}}
        """
      ).refusal()
    }
    let reason = "post_processor.single has more than 1024 tokens, expected at most so many"
    #expect(template(PostProcessor.maximumTokenCount) == nil)
    #expect(template(PostProcessor.maximumTokenCount + 1) == reason)
    #expect(template(1, idsEach: PostProcessor.maximumTokenCount) == nil)
    #expect(template(1, idsEach: PostProcessor.maximumTokenCount + 1) == reason)
  }

  @Test func theStepsOfAPart() {
    func steps(_ count: Int) -> String? {
      let steps = [String](repeating: #"{"type": "NFC"}"#, count: count)
      return Tree().setting(
        "normalizer",
        "{\"type\": \"Sequence\", \"normalizers\": [\(steps.joined(separator: ","))]}"
      ).refusal()
    }
    #expect(steps(PartLimits.maximumStepCount) == nil)
    #expect(
      steps(PartLimits.maximumStepCount + 1)
        == "normalizer has 257 steps, expected at most 256")
  }

  @Test func theStepsOfAPartAreCountedBeforeAnyIsRead() {
    let steps = [String](repeating: #"{"type": "NFC"}"#, count: 256) + [#"{"type": "Unknown"}"#]
    #expect(
      Tree().setting(
        "normalizer",
        "{\"type\": \"Sequence\", \"normalizers\": [\(steps.joined(separator: ","))]}"
      ).refusal() == "normalizer has 257 steps, expected at most 256")
  }

  @Test func theBytesOfAllPatterns() {
    func refusal(_ count: Int) -> String? {
      func split(_ count: Int) -> String {
        let pattern = String(repeating: "x", count: count)
        return #"{"type": "Split", "pattern": {"Regex": "\#(pattern)"}, "#
          + #""behavior": "Isolated", "invert": false}"#
      }
      let replace = #"{"type": "Replace", "pattern": {"Regex": "y"}, "content": ""}"#
      return Tree().setting("normalizer", replace).setting("decoder", replace).setting(
        "pre_tokenizer",
        "{\"type\": \"Sequence\", \"pretokenizers\": [\(split(2000)), \(split(count - 2002))]}"
      ).refusal()
    }
    #expect(refusal(PartLimits.maximumPatternByteCount) == nil)
    #expect(
      refusal(PartLimits.maximumPatternByteCount + 1)
        == "its regular expressions have 4097 bytes together, expected at most 4096")
  }

  @Test func theBytesOfAText() throws {
    let text = [UInt8](repeating: 0x61, count: Tokenizer.maximumTextByteCount + 1)
    #expect(
      throws: PeftoolError(
        .unsupported, "a text of 268435457 bytes, expected at most 268435456")
    ) { try Tree().tokenizer().encode(bytes: text) }
  }

  @Test func theTokensOfAText() throws {
    #expect(Tokenizer.maximumTokenCount == 1 << 28)
    let end = String(repeating: "h", count: 60)
    let names = (0...255).map { byte in
      "\"<0x\(byte < 16 ? "0" : "")\(String(byte, radix: 16, uppercase: true))>\": \(20 + byte)"
    }
    // Each word becomes a token for each of its 61 bytes.
    let tokenizer = try Tree().replacing(#"[["a", "b"]]"#, "[]")
      .replacing(#""byte_fallback": false"#, #""byte_fallback": true"#)
      .replacing(#""<unk>": 11"#, #""<unk>": 11, "# + names.joined(separator: ", "))
      .setting("end_of_word_suffix", "\"\(end)\"")
      .setting("pre_tokenizer", #"{"type": "Digits", "individual_digits": true}"#).tokenizer()
    let text = Array("1234567890".utf8)
    #expect(try tokenizer.encode(checked: text, false, limit: 620).count == 610)
    #expect(throws: PeftoolError(.unsupported, "a text of more than 600 tokens")) {
      try tokenizer.encode(checked: text, false, limit: 600)
    }
    // So are the tokens of a template.
    let twice = #"[{"Sequence": {"id": "A"}}, {"Sequence": {"id": "A"}}]"#
    let double = try Tree().setting(
      "post_processor",
      #"{"type": "TemplateProcessing", "single": \#(twice), "pair": [], "special_tokens": {}}"#
    ).tokenizer()
    #expect(try double.encode(checked: Array("aaaa".utf8), false, limit: 8).count == 8)
    #expect(throws: PeftoolError(.unsupported, "a text of more than 7 tokens")) {
      try double.encode(checked: Array("aaaa".utf8), false, limit: 7)
    }
  }
}
