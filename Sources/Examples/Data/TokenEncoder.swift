package import Files
package import Tokenizers

/// How text becomes numbers of tokens, and how a text ends.
package struct TokenEncoder: Sendable {
  /// What cuts text into tokens.
  package let tokenizer: Tokenizer
  /// The token that ends a text; nil where none is known.
  package let eos: String?
  /// Whether the tokenizer itself ends every text with it.
  private let endsByItself: Bool
  /// The most bytes that are encoded again to find a conversation's answers.
  let searchLimit: Int

  /// The most bytes that are encoded again to find where answers begin and end, where that cannot
  /// be told turn by turn.
  package static let maximumSearchByteCount = 64 << 20

  /// Of a tokenizer and the eos token that `tokenizer_config.json` names.
  ///
  /// - Throws: `different` where the tokenizer has no such token.
  package init(
    _ tokenizer: Tokenizer, eos: String?, searchLimit: Int = maximumSearchByteCount
  ) throws(PeftoolError) {
    self.searchLimit = searchLimit
    self.tokenizer = tokenizer
    self.eos = eos
    guard let eos else {
      endsByItself = false
      return
    }
    guard let id = tokenizer.id(of: eos) else {
      throw PeftoolError(
        .different,
        "tokenizer_config.json names the eos_token '\(eos.printable)', which tokenizer.json has not"
      )
    }
    // What an empty text becomes would not tell: bos, which stands before one, may be the same token.
    endsByItself = tokenizer.tokensBehindText.last == id
  }

  /// The numbers of a text's tokens, with or without those that the tokenizer puts around a text.
  func encode(_ text: String, _ addingSpecialTokens: Bool) throws(PeftoolError) -> [Int32] {
    try tokenizer.encode(text, addingSpecialTokens: addingSpecialTokens)
  }

  /// The numbers of a text's tokens alone, and where each ends.
  func encodeWithEnds(_ text: String) throws(PeftoolError) -> TokenEnds {
    try tokenizer.encodeWithEnds(text)
  }

  /// The numbers of a prompt and a text as one, with what the tokenizer puts around it and its end.
  ///
  /// Where the text ends with the eos token, or the tokenizer puts it there, it is given no further
  /// one; that a prompt ends with it, behind which nothing follows, does not count (TRL's
  /// `SFTTrainer`).
  /// - Throws: `different` where no eos token is known, and as the tokenizer.
  func ended(_ text: String, behind prompt: String = "") throws(PeftoolError) -> [Int32] {
    guard let eos else {
      throw PeftoolError(
        .different, "the tokenizer names no eos_token, with which each text is to end")
    }
    return try encode(prompt + (endsByItself || text.ends(with: eos) ? text : text + eos), true)
  }
}
