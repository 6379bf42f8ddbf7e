package import Files

/// Text out of numbers of tokens that come one after the other.
///
/// The texts that `push` and `finish` return are, one after the other, what `Tokenizer.decode`
/// makes of all the numbers, and none of them ends within a character. A decoder whose steps look
/// at the whole text, such as a `Replace` after `Fuse`, gives all of it at the end.
package struct TextStream {
  private let tokenizer: Tokenizer
  private let skipsSpecialTokens: Bool
  private var stages: [DecodingStage]
  /// What the decoder may still add to the tokens so far.
  private var growth = noGrowth

  private static let noGrowth = GrowthBudget(of: "decoder", byteCount: 0)

  package init(_ tokenizer: Tokenizer, skippingSpecialTokens: Bool = false) {
    self.tokenizer = tokenizer
    skipsSpecialTokens = skippingSpecialTokens
    stages = DecodingStage.stages(tokenizer.decoder)
  }

  /// Takes a number, and returns the text that is certain now and was not before.
  ///
  /// - Throws: `damaged` for a number that no token has, `unsupported` where a pattern of the
  ///   decoder takes too many steps, or the decoder makes the text too long.
  package mutating func push(_ id: Int32) throws(PeftoolError) -> String {
    var tokens = TokenTexts()
    try add(id, to: &tokens)
    var text: [UInt8] = []
    try push(&tokens, from: 0, to: &text)
    return String(decoding: text, as: UTF8.self)
  }

  /// Ends the numbers, and returns the rest of the text.
  ///
  /// - Throws: `unsupported` where a pattern of the decoder takes too many steps, or the decoder makes
  ///   the text too long.
  package mutating func finish() throws(PeftoolError) -> String {
    var text: [UInt8] = []
    try finish(to: &text)
    return String(decoding: text, as: UTF8.self)
  }

  /// Takes numbers, and appends the text that is certain.
  mutating func push(
    contentsOf ids: some Sequence<Int32>, to text: inout [UInt8]
  ) throws(PeftoolError) {
    var tokens = TokenTexts()
    for id in ids {
      try add(id, to: &tokens)
      if tokens.count == Self.batchCount { try push(&tokens, from: 0, to: &text) }
    }
    try push(&tokens, from: 0, to: &text)
  }

  /// As `finish`, with the text at the end of another one.
  mutating func finish(to text: inout [UInt8]) throws(PeftoolError) {
    for index in stages.indices {
      var tokens = TokenTexts()
      try stages[index].finish(to: &tokens, &growth)
      try push(&tokens, from: index + 1, to: &text)
    }
    stages = DecodingStage.stages(tokenizer.decoder)
    growth = Self.noGrowth
  }

  /// So many tokens go through the steps at once.
  private static let batchCount = 1024

  private mutating func add(_ id: Int32, to tokens: inout TokenTexts) throws(PeftoolError) {
    if skipsSpecialTokens, tokenizer.isSpecial(id) { return }
    let byteCount = tokens.bytes.count
    guard tokenizer.appendDecodedText(of: id, to: &tokens) else {
      throw PeftoolError(
        .damaged,
        "token \(id) is none of the tokenizer's, which has 0 to \(tokenizer.vocabularySize - 1)")
    }
    growth.extend(byteCount: tokens.bytes.count - byteCount)
  }

  /// Takes tokens through the stages from one on; they are gone afterwards.
  private mutating func push(
    _ tokens: inout TokenTexts, from first: Int, to text: inout [UInt8]
  ) throws(PeftoolError) {
    var next = TokenTexts()
    for index in first..<stages.count {
      try stages[index].push(tokens, to: &next, &growth)
      swap(&tokens, &next)
      next.removeAll()
    }
    text += tokens.bytes
    tokens.removeAll()
  }
}
