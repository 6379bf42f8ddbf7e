package import Files

/// Text to the numbers of a model's tokens and back, as a `tokenizer.json` says.
package struct Tokenizer: Sendable {
  /// Reads a `tokenizer.json`.
  ///
  /// - Throws: `io`; `damaged` where the file contradicts its format; `unsupported` where it has a
  ///   part that peftool does not know; with the path.
  package init(contentsOf path: String) throws(PeftoolError) {
    throw PeftoolError(.unsupported, "tokenizers cannot be read yet", path: path)
  }

  /// The largest number of a token and one, added tokens included.
  package var vocabularySize: Int { 0 }

  /// The number of a token, added or of the model.
  package func id(of token: String) -> Int32? { nil }

  /// The token of a number as it stands in the file; nil where no token has it.
  package func token(_ id: Int32) -> String? { nil }

  /// The numbers of a text's tokens.
  ///
  /// - Throws: `unsupported` where a pattern of the file takes too many steps on this text,
  ///   `damaged` where the text has a character that the file has no token for.
  package func encode(
    _ text: String, addingSpecialTokens: Bool = true
  ) throws(PeftoolError) -> [Int32] {
    throw PeftoolError(.unsupported, "text cannot be encoded yet")
  }

  /// The numbers of the tokens of a text that should be UTF-8.
  ///
  /// - Throws: as `encode(_:)`, and `damaged` with the offset of what is no UTF-8.
  package func encode(
    bytes: [UInt8], addingSpecialTokens: Bool = true
  ) throws(PeftoolError) -> [Int32] {
    throw PeftoolError(.unsupported, "text cannot be encoded yet")
  }

  /// The text that numbers of tokens stand for.
  ///
  /// - Throws: `damaged` for a number that no token has.
  package func decode(
    _ ids: some Sequence<Int32>, skippingSpecialTokens: Bool = false
  ) throws(PeftoolError) -> String {
    var stream = TextStream(self, skippingSpecialTokens: skippingSpecialTokens)
    var text = ""
    for id in ids { text += try stream.push(id) }
    return text + stream.finish()
  }
}
