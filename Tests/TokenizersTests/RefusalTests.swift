import Files
import Fixtures
import Foundation
import JSON
import Testing

@testable import Tokenizers

/// What is refused, each with its line.
@Suite struct RefusalTests {
  @Test(arguments: [
    ("normalizer", "BertNormalizer"), ("normalizer", "Nmt"), ("normalizer", "Precompiled"),
    ("pre_tokenizer", "UnicodeScripts"), ("pre_tokenizer", "FixedLength"),
    ("pre_tokenizer", "Delimiter"), ("post_processor", "Future"), ("decoder", "WordPiece"),
    ("decoder", "CTC"), ("normalizer", "NF\u{212A}C"), ("normalizer", "NF\u{212A}D"),
  ])
  func aPartThatIsNotKnownIsNamed(place: String, type: String) {
    #expect(
      Tree().setting(place, "{\"type\": \"\(type)\"}").refusal()
        == "\(place) is \"\(type)\", which peftool does not know")
  }

  @Test(arguments: ["Unigram", "WordPiece", "WordLevel"])
  func anotherModelIsNamed(type: String) {
    let tree = Tree().replacing(#""type": "BPE""#, "\"type\": \"\(type)\"")
    #expect(tree.refusal() == "its model is \"\(type)\", expected \"BPE\"")
    // Unigram has a list for its vocabulary.
    let list = Tree(
      text: #"{"model": {"vocab": [["a", -1.5]], "unk_id": 0, "type": "\#(type)"}}"#)
    #expect(list.refusal() == "its model is \"\(type)\", expected \"BPE\"")
  }

  @Test(arguments: [
    (#""version": "1.0""#, #""version": "2.0""#, #"version is "2.0", expected "1.0""#),
    (#""version": "1.0""#, #""future": 1"#, #""future" is nothing that peftool knows"#),
    (#""dropout": null"#, #""dropout": 0.1"#, "model.dropout is 0.1: other tokens each time"),
    (#""dropout": null"#, #""future": 1"#, #"model.future is nothing that peftool knows of "BPE""#),
    (#""fuse_unk": false"#, #""fuse_unk": 1"#, "model.fuse_unk is 1, expected true or false"),
    (#""unk_token": null"#, #""unk_token": 1"#, "model.unk_token is 1, expected a string"),
    (#""ab": 8"#, #""ab": -8"#, #"the number of token "ab" is none from 0 to 999999"#),
    (#""ab": 8"#, #""ab": 1000000"#, #"the number of token "ab" is none from 0 to 999999"#),
    (#""ab": 8"#, #""ab": 1.5"#, #"the number of token "ab" is none from 0 to 999999"#),
    (#""ab": 8"#, #""ab": "8""#, "found a string, expected a number"),
    (#""ab": 8"#, #""ab": 7"#, #"token "ab" has the number 7, which another one has"#),
    (#""ab": 8"#, #""b": 8"#, #"token "b" stands twice"#),
    (#""ab": 8"#, #""x": 8"#, #"merge 0 of "a" and "b": "ab" is not in vocab"#),
    (#"[["a", "b"]]"#, #"[["a", "x"]]"#, #"merge 0 of "a" and "x": "x" is not in vocab"#),
    (#"[["a", "b"]]"#, #"[["a", "b", "c"]]"#, "a merge of 3 parts, expected 2"),
    (#"[["a", "b"]]"#, #"["a b c"]"#, #"merge "a b c" is none of two parts"#),
    (#"[["a", "b"]]"#, #"["ab"]"#, #"merge "ab" is none of two parts"#),
    (#"[["a", "b"]]"#, #"[[1, 2]]"#, "found a number, expected a string"),
    (#""merges": [["a", "b"]]"#, #""type": "BPE""#, #""type" stands twice"#),
    (#", "ignore_merges": false, "vocab""#, #", "ignore_merges": false, "words""#, "has no vocab"),
    (#""merges": [["a", "b"]]"#, #""cache_capacity": 1"#, "its model has no merges"),
    (#""model": {"#, #""mode": {"#, "has no model"),
  ])
  func aFileThatContradictsItselfIsRefused(old: String, new: String, reason: String) throws {
    let refusal = try #require(Tree().replacing(old, new).refusal())
    #expect(refusal.contains(reason), "\(refusal)")
  }

  @Test(arguments: [
    ("normalizer", #"{"type": "Prepend"}"#, "normalizer.prepend is missing"),
    ("normalizer", "[]", "normalizer is an array of 0, expected an object"),
    ("normalizer", "{}", "normalizer has no type"),
    ("normalizer", #"{"type": 1}"#, "normalizer.type is 1, expected a string"),
    (
      "normalizer", #"{"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "X"}]}"#,
      #"normalizer.normalizers[1] is "X", which peftool does not know"#
    ),
    (
      "normalizer", #"{"type": "NFC", "form": 1}"#,
      #"normalizer.form is nothing that peftool knows of "NFC""#
    ),
    (
      "normalizer", #"{"type": "Replace", "pattern": {"Regex": "("}, "content": ""}"#,
      "normalizer.pattern: '(' is no regular expression"
    ),
    (
      "normalizer", #"{"type": "Replace", "pattern": "a", "content": ""}"#,
      #"normalizer.pattern is "a", expected an object"#
    ),
    (
      "normalizer", #"{"type": "Replace", "pattern": {"Glob": "a"}, "content": ""}"#,
      "normalizer.pattern is an object of 1, expected a String or a Regex"
    ),
    (
      "pre_tokenizer",
      #"{"type": "Split", "pattern": {"String": "a"}, "behavior": "Shuffled", "invert": false}"#,
      #"pre_tokenizer.behavior is "Shuffled", peftool takes Removed, Isolated, "#
    ),
    (
      "pre_tokenizer", #"{"type": "ByteLevel", "trim_offsets": true}"#,
      "pre_tokenizer.add_prefix_space is missing"
    ),
    (
      "pre_tokenizer", #"{"type": "Metaspace", "replacement": "ab"}"#,
      #"pre_tokenizer.replacement is "ab", expected one character"#
    ),
    (
      "pre_tokenizer", #"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "last"}"#,
      #"pre_tokenizer.prepend_scheme is "last", peftool takes first, always, never"#
    ),
    (
      "pre_tokenizer", #"{"type": "Metaspace", "replacement": "▁", "add_prefix_space": false}"#,
      #"pre_tokenizer.add_prefix_space is false, prepend_scheme "always""#
    ),
    (
      "post_processor",
      #"{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}], "pair": [], "#
        + #""special_tokens": {}}"#, #"post_processor.special_tokens has no "x""#
    ),
    (
      "post_processor",
      #"{"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B"}}], "pair": [], "#
        + #""special_tokens": {}}"#,
      #"post_processor.single has the text "B", expected "A" alone"#
    ),
    (
      "post_processor", #"{"type": "BertProcessing", "sep": ["a", -1], "cls": ["a", 0]}"#,
      "post_processor.sep is -1, expected the number of a token"
    ),
    (
      "post_processor",
      #"{"type": "Sequence", "processors": [{"type": "BertProcessing", "sep": ["a", 0], "#
        + #""cls": ["a", 0]}, {"type": "BertProcessing", "sep": ["a", 0], "cls": ["a", 0]}]}"#,
      "post_processor.processors[1] is the second one that adds tokens"
    ),
    (
      "decoder", #"{"type": "Strip", "content": " ", "start": -1, "stop": 0}"#,
      "decoder.start is -1, expected 0 to 1000000"
    ),
    ("decoder", #"{"type": "BPEDecoder", "suffix": ""}"#, "decoder.suffix is empty"),
  ])
  func aPartWithAFaultIsRefused(place: String, part: String, reason: String) throws {
    let refusal = try #require(Tree().setting(place, part).refusal())
    #expect(refusal.hasPrefix(reason), "\(refusal)")
  }

  @Test(arguments: ["single_word", "lstrip", "rstrip", "normalized", "special"])
  func anAddedTokenHasAllItsFlags(flag: String) {
    #expect(
      Tree().adding(("S", "")).replacing("\"\(flag)\": false", "\"x\": false").refusal()
        == "\(flag) of added token \"S\" is missing, expected true or false")
  }

  @Test func theLineNamesTheFile() throws {
    let scratch = try Scratch()
    let tree = Tree().setting("decoder", #"{"type": "CTC"}"#)
    let path = try scratch.write("t.json", tree.text.replacing("ADDED", with: ""))
    #expect(
      throws: PeftoolError(
        .unsupported, "decoder is \"CTC\", which peftool does not know", path: path)
    ) { try Tokenizer(contentsOf: path) }
    #expect(throws: PeftoolError.self) { try Tokenizer(contentsOf: scratch.path("absent")) }
  }

  @Test func bytesThatAreNoUTF8AreRefusedWithTheirPlace() throws {
    #expect(throws: PeftoolError(.damaged, "the text is no UTF-8", offset: 2)) {
      try Tree().tokenizer().encode(bytes: [0x61, 0x62, 0xC3, 0x28])
    }
  }

  @Test(.timeLimit(.minutes(5)))
  func aPatternThatExplodesIsGivenUp() throws {
    func split(_ pattern: String) -> String {
      """
      {"type": "Split", "pattern": {"Regex": "\(pattern)"}, "behavior": "Isolated",
      "invert": false}
      """
    }
    let text = String(repeating: "a", count: 200)
    for pattern in ["(a+)+$", "(a|aa)+$", "(a|a)*!$"] {
      let tokenizer = try Tree().setting("pre_tokenizer", split(pattern)).tokenizer()
      #expect(
        throws: PeftoolError(.unsupported, "matching '\(pattern)' takes too many steps")
      ) { try tokenizer.encode(text + "!b") }
    }
    let replace = #"{"type": "Replace", "pattern": {"Regex": "(a|aa)+$"}, "content": ""}"#
    let tokenizer = try Tree().setting("decoder", replace).adding((text + "!", "")).tokenizer()
    #expect(throws: PeftoolError(.unsupported, "matching '(a|aa)+$' takes too many steps")) {
      try tokenizer.decode([12])
    }
  }

  @Test func aTextThatGrowsWithoutEndIsRefused() throws {
    let double = #"{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}"#
    let steps = [String](repeating: double, count: 40).joined(separator: ", ")
    let tokenizer = try Tree()
      .setting("normalizer", "{\"type\": \"Sequence\", \"normalizers\": [\(steps)]}").tokenizer()
    let limit = GrowthBudget.maximumGrowth * 2 + GrowthBudget.spareByteCount
    let error = PeftoolError(
      .unsupported,
      "normalizer and pre_tokenizer would add more than \(limit) bytes, 64 times the text's length")
    #expect(throws: error) { try tokenizer.encode("ba") }
    let bytes = #"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}"#
    let levels = [String](repeating: bytes, count: 40).joined(separator: ", ")
    let cut = try Tree().setting(
      "pre_tokenizer", "{\"type\": \"Sequence\", \"pretokenizers\": [\(levels)]}"
    ).tokenizer()
    #expect(throws: PeftoolError.self) { try cut.encode("é") }
  }

  /// What may be added is for the text as a whole, not for each part between added tokens.
  @Test func manyPartsGrowNoMoreThanOne() throws {
    let prefix = String(repeating: "b", count: 5000)
    let tokenizer = try Tree().adding(("S", ""))
      .setting("normalizer", "{\"type\": \"Prepend\", \"prepend\": \"\(prefix)\"}").tokenizer()
    func text(_ parts: Int) -> String {
      [String](repeating: "a", count: parts).joined(separator: "S")
    }
    #expect(try tokenizer.encode(text(10)).count == 10 * 5001 + 9)
    #expect(throws: PeftoolError.self) { try tokenizer.encode(text(20)) }
    // Nor does what one step takes away make room for another.
    let cut = #"{"type": "Replace", "pattern": {"String": "b"}, "content": ""}"#
    let both = """
      {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\(prefix)"}, \(cut)]}
      """
    let emptied = try Tree().adding(("S", "")).setting("normalizer", both).tokenizer()
    #expect(throws: PeftoolError.self) { try emptied.encode(text(20)) }
  }

  @Test(arguments: ["", #"{"type": "Fuse"}, "#])
  func aDecoderThatGrowsWithoutEndIsRefused(first: String) throws {
    func tokenizer(_ count: Int) throws -> Tokenizer {
      let double = #"{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}"#
      let steps = [String](repeating: double, count: count).joined(separator: ", ")
      return try Tree().setting(
        "decoder", "{\"type\": \"Sequence\", \"decoders\": [\(first)\(steps)]}"
      ).tokenizer()
    }
    #expect(try tokenizer(8).decode([0, 0]).utf8.count == 512)
    let limit = GrowthBudget.maximumGrowth * 2 + GrowthBudget.spareByteCount
    let error = PeftoolError(
      .unsupported, "decoder would add more than \(limit) bytes, 64 times the text's length")
    #expect(throws: error) { try tokenizer(40).decode([0, 0]) }
  }
}
