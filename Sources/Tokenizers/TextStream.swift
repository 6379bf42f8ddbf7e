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

  package init(_ tokenizer: Tokenizer, skippingSpecialTokens: Bool = false) {
    self.tokenizer = tokenizer
    skipsSpecialTokens = skippingSpecialTokens
    stages = DecodingStage.stages(tokenizer.decoder)
  }

  /// Takes a number, and returns the text that is certain now and was not before.
  ///
  /// - Throws: `damaged` for a number that no token has, `unsupported` where a pattern of the
  ///   decoder takes too many steps.
  package mutating func push(_ id: Int32) throws(PeftoolError) -> String {
    var text: [UInt8] = []
    try push(id, to: &text)
    return String(decoding: text, as: UTF8.self)
  }

  /// Ends the numbers, and returns the rest of the text.
  ///
  /// - Throws: `unsupported` where a pattern of the decoder takes too many steps.
  package mutating func finish() throws(PeftoolError) -> String {
    var text: [UInt8] = []
    try finish(to: &text)
    return String(decoding: text, as: UTF8.self)
  }

  /// As `push`, with the text at the end of another one.
  mutating func push(_ id: Int32, to text: inout [UInt8]) throws(PeftoolError) {
    guard let token = tokenizer.decodedText(of: id) else {
      throw PeftoolError(
        .damaged,
        "token \(id) is none of the tokenizer's, which has 0 to \(tokenizer.vocabularySize - 1)")
    }
    if skipsSpecialTokens, tokenizer.isSpecial(id) { return }
    try Self.push(token, through: &stages, from: 0, to: &text)
  }

  /// As `finish`, with the text at the end of another one.
  mutating func finish(to text: inout [UInt8]) throws(PeftoolError) {
    for index in stages.indices {
      var stage = stages[index]
      var tokens: [[UInt8]] = []
      try stage.finish { (token) throws(PeftoolError) in tokens.append(token) }
      for token in tokens { try Self.push(token, through: &stages, from: index + 1, to: &text) }
    }
    stages = DecodingStage.stages(tokenizer.decoder)
  }

  private static func push(
    _ token: [UInt8], through stages: inout [DecodingStage], from index: Int,
    to text: inout [UInt8]
  ) throws(PeftoolError) {
    guard index < stages.count else {
      text += token
      return
    }
    var tokens: [[UInt8]] = []
    try stages[index].push(token) { (token) throws(PeftoolError) in tokens.append(token) }
    for token in tokens { try push(token, through: &stages, from: index + 1, to: &text) }
  }
}
