import Files
import JSON
import Testing
import Tokenizers

/// What each part does; the interop tests compare all of them with the library.
@Suite struct PartTests {
  @Test(arguments: [
    ("Removed", "▁a▁c▁d"), ("Isolated", "▁a▁b▁c▁b▁b▁d"), ("MergedWithPrevious", "▁ab▁cb▁b▁d"),
    ("MergedWithNext", "▁a▁bc▁b▁bd"), ("Contiguous", "▁a▁b▁c▁bb▁d"),
  ])
  func whatSeparatesGoesWhereTheBehaviorSays(behavior: String, pieces: String) throws {
    // A sign before each piece shows where it begins.
    let tree = Tree().setting(
      "pre_tokenizer",
      """
      {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"String": "b"}, "behavior": "\(behavior)", "invert": false},
      {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false}]}
      """)
    #expect(try tree.tokens("abcbbd").joined() == pieces)
  }

  @Test func byteLevelAsANormalizerMakesCharactersOfBytes() throws {
    let tree = Tree().setting("normalizer", #"{"type": "ByteLevel"}"#)
      .replacing(#""<unk>": 11"#, #""Ġ": 11, "Ã": 12, "©": 13"#)
    #expect(try tree.tokens("a éb") == ["a", "Ġ", "Ã", "©", "b"])
  }

  @Test(arguments: [
    (#"{"type": "Prepend", "prepend": "b"}"#, "a", "ba"),
    (#"{"type": "Prepend", "prepend": "b"}"#, "", ""),
    (#"{"type": "Replace", "pattern": {"String": "c"}, "content": "ab"}"#, "cdc", "abdab"),
    (#"{"type": "Replace", "pattern": {"Regex": "[cd]+"}, "content": ""}"#, "acdb", "ab"),
    (#"{"type": "Replace", "pattern": {"Regex": "^"}, "content": "h"}"#, "ab", "hab"),
    (#"{"type": "Lowercase"}"#, "ABÇ", "ab"),
    (#"{"type": "Strip", "strip_left": true, "strip_right": false}"#, "  a ", "a "),
    (#"{"type": "Strip", "strip_left": false, "strip_right": true}"#, " a  ", " a"),
    (#"{"type": "NFD"}"#, "çḋ", "cd"), (#"{"type": "StripAccents"}"#, "c\u{327}d\u{307}", "cd"),
    (#"{"type": "NFKD"}"#, "ｆ\u{1D41A}", "fa"),
    (
      #"{"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}"#, "ＡＢ",
      "ab"
    ),
  ])
  func normalizersChangeText(normalizer: String, text: String, expected: String) throws {
    // Characters that are no tokens are left out.
    #expect(try Tree().setting("normalizer", normalizer).tokens(text).joined() == expected)
  }

  @Test func youngCharactersAreLeftAsTheyAre() throws {
    // U+11938, of Unicode 13, would be two characters; U+01C9, of Unicode 1, is.
    let tree = try Samples.tokenizer("gpt2").encode("\u{11938}")
    #expect(try normalized("NFD", "\u{11938}") == tree)
    let two = try Samples.tokenizer("gpt2").encode("lj")
    #expect(try normalized("NFKD", "\u{1C9}") == two)
    // A mark of Unicode 14 moves no older one: U+0334 would go before it.
    let marks = try Samples.tokenizer("gpt2").encode("a\u{898}\u{334}")
    #expect(try normalized("NFD", "a\u{898}\u{334}") == marks)
  }

  private func normalized(_ form: String, _ text: String) throws -> [Int32] {
    let file = try InputFile(opening: "\(Samples.folder)/gpt2.json")
    var tree = String(decoding: try file.bytes(0..<file.byteCount), as: UTF8.self)
    tree = tree.replacing("\"normalizer\":null", with: "\"normalizer\":{\"type\":\"\(form)\"}")
    return try Tokenizer(parsing: Array(tree.utf8)).encode(text)
  }

  @Test func theFirstSchemeAddsASignAtTheBeginningOfTheTextOnly() throws {
    let metaspace = """
      {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true}
      """
    let tree = Tree().setting("pre_tokenizer", metaspace).adding(("<s>", ""))
    #expect(try tree.tokens("a<s>b") == ["▁", "a", "<s>", "b"])
    #expect(try tree.tokens("<s>b") == ["<s>", "b"])
    #expect(try tree.tokens(" a b") == ["▁", "a", "▁", "b"])
    // What a normalizer makes of the first character is at the beginning; what it leaves is not.
    let digits = Tree().setting("normalizer", #"{"type": "NFKD"}"#).setting(
      "pre_tokenizer",
      """
      {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"String": "f"},
      "behavior": "Isolated", "invert": false}, \(metaspace)]}
      """)
    #expect(try digits.tokens("\u{FB00}f") == ["▁", "f", "▁", "f", "f"])
    let strip = Tree().setting(
      "normalizer", #"{"type": "Strip", "strip_left": true, "strip_right": true}"#
    ).setting("pre_tokenizer", metaspace)
    #expect(try strip.tokens("  a") == ["a"])
  }

  @Test func postProcessorsPutTokensAround() throws {
    let template = """
      {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "h", "type_id": 0}},
      {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [], "special_tokens": {"h": {"id": "h", "ids": [7, 6], "tokens": ["h", "g"]}}}
      """
    let tokenizer = try Tree().setting("post_processor", template).tokenizer()
    #expect(try tokenizer.encode("ac") == [7, 6, 0, 2, 0, 2])
    #expect(try tokenizer.encode("ac", addingSpecialTokens: false) == [0, 2, 0, 2])
    let bert = #"{"type": "BertProcessing", "sep": ["g", 6], "cls": ["h", 7]}"#
    #expect(try Tree().setting("post_processor", bert).tokenizer().encode("c") == [7, 2, 6])
  }

  @Test func unknownCharactersAreAsTheModelSays() throws {
    func tokens(_ settings: (String, String)...) throws -> [String] {
      try settings.reduce(Tree()) { $0.replacing($1.0, $1.1) }.tokens("axyb")
    }
    let unknown = (#""unk_token": null"#, #""unk_token": "<unk>""#)
    #expect(try tokens() == ["ab"])
    #expect(try tokens(unknown) == ["a", "<unk>", "<unk>", "b"])
    #expect(
      try tokens(unknown, (#""fuse_unk": false"#, #""fuse_unk": true"#))
        == ["a", "<unk>", "b"])
    // A byte's token comes before the unknown one that still waits, as in the library.
    let bytes = Tree()
      .replacing(#""byte_fallback": false"#, #""byte_fallback": true"#)
      .replacing(#""h": 7"#, #""<0x79>": 7"#).replacing(unknown.0, unknown.1)
    #expect(try bytes.tokens("axyb") == ["a", "<0x79>", "<unk>", "b"])
    let missing = try Tree().replacing(unknown.0, #""unk_token": "[UNK]""#).tokenizer()
    #expect(try missing.encode("a") == [0])
    #expect(
      throws: PeftoolError(
        .damaged, "unk_token \"[UNK]\" is not in vocab, and \"x\" is no token")
    ) { try missing.encode("ax") }
  }

  @Test func affixesMarkTheInsideAndTheEndOfWords() throws {
    let tree = Tree()
      .replacing(#""continuing_subword_prefix": null"#, #""continuing_subword_prefix": "g""#)
      .replacing(#""end_of_word_suffix": null"#, #""end_of_word_suffix": "h""#)
      .replacing(#""<unk>": 11"#, ##""gb": 11, "gch": 12, "abch": 13"##)
      .replacing(#"[["a", "b"]]"#, #"[["a", "gb"], ["ab", "gch"]]"#)
    #expect(try tree.tokens("abc") == ["abch"])
    #expect(try tree.tokens("ab") == ["a"])
  }

  @Test func aWholeTokenNeedsNoMergesWhereTheyAreIgnored() throws {
    let tree = Tree().replacing(#""<unk>": 11"#, #""abc": 11"#)
    #expect(try tree.tokens("abc") == ["ab", "c"])
    let ignoring = tree.replacing(#""ignore_merges": false"#, #""ignore_merges": true"#)
    #expect(try ignoring.tokens("abc") == ["abc"])
  }

  @Test func mergesAreSpeltInTwoWays() throws {
    let tree = Tree().replacing(#"[["a", "b"]]"#, ##"["#version: 0.2", "a b"]"##)
    #expect(try tree.tokens("ab") == ["ab"])
  }

  @Test func aModelWithoutATypeIsBPE() throws {
    #expect(try Tree().replacing(#""type": "BPE", "#, "").tokens("ab") == ["ab"])
  }
}
