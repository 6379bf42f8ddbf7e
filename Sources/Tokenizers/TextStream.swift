package import Files

/// Text out of numbers of tokens that come one after the other.
///
/// The texts that `push` and `finish` return are, one after the other, what `Tokenizer.decode`
/// makes of all the numbers, and none of them ends within a character.
package struct TextStream {
  package init(_ tokenizer: Tokenizer, skippingSpecialTokens: Bool = false) {
  }

  /// Takes a number, and returns the text that is certain now and was not before.
  ///
  /// - Throws: `damaged` for a number that no token has.
  package mutating func push(_ id: Int32) throws(PeftoolError) -> String {
    throw PeftoolError(.unsupported, "text cannot be decoded yet")
  }

  /// Ends the numbers, and returns the rest of the text.
  package mutating func finish() -> String { "" }
}
