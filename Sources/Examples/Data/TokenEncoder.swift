package import Files

/// How text becomes numbers of tokens, and how a text ends.
package struct TokenEncoder: Sendable {
  /// The numbers of a text's tokens, with or without those that a tokenizer puts around a text.
  package typealias Encode =
    @Sendable (_ text: String, _ addingSpecialTokens: Bool) throws(PeftoolError) -> [Int32]

  let encode: Encode
  /// The token that ends a text, with its number.
  let eos: (text: String, id: Int32)?
  /// Whether the tokenizer itself ends every text with it.
  let endsByItself: Bool
  /// The largest number of a token and one.
  let vocabularySize: Int

  /// Of a tokenizer's parts.
  ///
  /// - Throws: what `encode` throws for an empty text.
  package init(
    eos: (text: String, id: Int32)?, vocabularySize: Int, encode: @escaping Encode
  ) throws(PeftoolError) {
    self.encode = encode
    self.eos = eos
    self.vocabularySize = vocabularySize
    if let eos { endsByItself = try encode("", true).last == eos.id } else { endsByItself = false }
  }

  /// The numbers of a text with what the tokenizer puts around it, its end once.
  ///
  /// A text that ends with the eos token is given no second one, as TRL's `SFTTrainer` does.
  /// - Throws: `different` where no eos token is known, and as `encode`.
  func ended(_ text: String) throws(PeftoolError) -> [Int32] {
    guard let eos else {
      throw PeftoolError(
        .different, "the tokenizer names no eos_token, with which each text is to end")
    }
    return try encode(endsByItself || text.ends(with: eos.text) ? text : text + eos.text, true)
  }
}

/// How many of the first elements two arrays have in common.
func commonPrefix(_ a: [Int32], _ b: [Int32]) -> Int {
  zip(a, b).prefix { $0 == $1 }.count
}
