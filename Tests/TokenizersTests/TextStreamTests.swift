import Files
import Fixtures
import JSON
import Testing
import Tokenizers

@Suite struct TextStreamTests {
  /// The texts that numbers give one after the other.
  private func texts(_ tokenizer: Tokenizer, _ ids: [Int32]) throws -> [String] {
    var stream = TextStream(tokenizer)
    var texts: [String] = []
    for id in ids { texts.append(try stream.push(id)) }
    return try texts + [stream.finish()]
  }

  @Test(arguments: Samples.names)
  func piecesAreTheWholeText(name: String) throws {
    let tokenizer = try Samples.tokenizer(name)
    var random = SplitMix64(seed: 3)
    var rows = try Samples.answers(name).map(\.ids)
    for _ in 0..<200 {
      rows.append(
        (0..<20).map { _ in Int32(random.next() % UInt64(tokenizer.vocabularySize)) })
    }
    for row in rows {
      let texts = try texts(tokenizer, row)
      #expect(texts.joined().isExactly(try tokenizer.decode(row)))
    }
  }

  @Test func aCharacterComesWhenItIsWhole() throws {
    let tokenizer = try Samples.tokenizer("gpt2")
    let ids = try tokenizer.encode("ø\u{1D518}!")
    try #require(ids.count == 7)
    #expect(
      try texts(tokenizer, ids).filter { !$0.isEmpty } == ["ø", "\u{1D518}", "!"])
    // Bytes that can be no character any more come as a replacement character at once.
    let half = try texts(tokenizer, [ids[2], ids[3], ids[4], ids[6]])
    #expect(half == ["", "", "", "\u{FFFD}!", ""])
    #expect(try texts(tokenizer, [ids[2]]) == ["", "\u{FFFD}"])
  }

  @Test func aRunOfByteTokensIsCertainAtItsEnd() throws {
    let tokenizer = try Samples.tokenizer("llama2")
    func id(_ token: String) throws -> Int32 { try #require(tokenizer.id(of: token)) }
    let run = try [id("▁"), id("a"), id("<0xC3>"), id("<0xA9>"), id("b"), id("<0xE2>"), id("a")]
    #expect(try texts(tokenizer, run) == ["", "a", "", "", "éb", "", "\u{FFFD}a", ""])
    // One more byte would have spoilt the two before it.
    let spoilt = try [id("<0xC3>"), id("<0xA9>"), id("<0xFF>")]
    #expect(try texts(tokenizer, spoilt) == ["", "", "", "\u{FFFD}\u{FFFD}\u{FFFD}"])
  }

  @Test func aStreamCanBeUsedAgain() throws {
    let tokenizer = try Samples.tokenizer("llama2")
    var stream = TextStream(tokenizer)
    let ids = try tokenizer.encode("a b", addingSpecialTokens: false)
    for _ in 0..<2 {
      var text = ""
      for id in ids { text += try stream.push(id) }
      #expect(try text + stream.finish() == "a b")
    }
  }

  @Test func decodersThatLookAtTheWholeTextGiveItAtTheEnd() throws {
    let decoder = """
      {"type": "Sequence", "decoders": [{"type": "Fuse"},
      {"type": "Replace", "pattern": {"Regex": "a.b"}, "content": "-"},
      {"type": "Strip", "content": "c", "start": 1, "stop": 1}]}
      """
    let tokenizer = try Tree().setting("decoder", decoder).tokenizer()
    #expect(try texts(tokenizer, [2, 0, 2, 1, 2]) == ["", "", "", "", "", "-"])
  }

  @Test func theEndOfAWordIsASpaceButInTheLastToken() throws {
    let tokenizer = try Tree().setting("decoder", #"{"type": "BPEDecoder", "suffix": "b"}"#)
      .tokenizer()
    #expect(try texts(tokenizer, [8, 8]) == ["", "a ", "a"])
    #expect(try tokenizer.decode([Int32]()) == "")
  }

  @Test func signsOfTheFirstTokenAreNothing() throws {
    let metaspace = #"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}"#
    let tokenizer = try Tree().setting("decoder", metaspace).tokenizer()
    #expect(try tokenizer.decode([10, 0, 10, 0]) == "a a")
    let never = metaspace.replacing("always", with: "never")
    #expect(try Tree().setting("decoder", never).tokenizer().decode([10, 0]) == " a")
  }

  @Test(arguments: [12, -1, Int32.max])
  func aNumberOfNoTokenIsRefused(id: Int32) throws {
    let tokenizer = try Tree().tokenizer()
    #expect(
      throws: PeftoolError(
        .damaged, "token \(id) is none of the tokenizer's, which has 0 to 11")
    ) { try tokenizer.decode([0, id]) }
  }

  @Test func aLongTextTakesNoLongerThanItsParts() throws {
    let tokenizer = try Samples.tokenizer("llama2")
    func seconds(_ count: Int) throws -> Double {
      let text = String(repeating: "an adapter 🎉 changes ", count: count)
      let ids = try tokenizer.encode(text, addingSpecialTokens: false)
      return try processorSeconds {
        var stream = TextStream(tokenizer)
        var result = ""
        for id in ids { result += try stream.push(id) }
        #expect(try result + stream.finish() == text)
      }
    }
    // Were all that came before gone over with each token, it would be 16 times.
    #expect(try seconds(4000) < seconds(1000) * 9)
  }
}
