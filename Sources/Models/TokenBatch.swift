/// Tokens that are computed at once: texts one after the other, each of which sees itself alone.
package struct TokenBatch: Sendable, Equatable {
  /// The tokens of all texts.
  package let tokens: [Int32]
  /// Where each text lies.
  package let texts: [Range<Int>]
  /// For each place the token that it should predict; nil where there is none.
  package let labels: [Int32?]

  /// Texts, each with the labels of its tokens: nil for a token that is not learned.
  ///
  /// The label of a token is predicted by the token before it, so that of a text's first counts for
  /// nothing.
  package init(_ texts: [(tokens: [Int32], labels: [Int32?])]) {
    var tokens: [Int32] = []
    var ranges: [Range<Int>] = []
    var labels: [Int32?] = []
    for text in texts where !text.tokens.isEmpty {
      precondition(text.tokens.count == text.labels.count, "a label a token")
      ranges.append(tokens.count..<tokens.count + text.tokens.count)
      tokens += text.tokens
      labels += text.labels.dropFirst() + [nil]
    }
    self.tokens = tokens
    self.texts = ranges
    self.labels = labels
  }

  /// Texts of which some tokens are learned.
  package init(_ texts: [(tokens: [Int32], isLabel: [Bool])]) {
    self.init(
      texts.map { text in (text.tokens, zip(text.tokens, text.isLabel).map { $1 ? $0 : nil }) })
  }

  /// How many tokens are predicted.
  package var labelCount: Int { labels.reduce(0) { $0 + ($1 == nil ? 0 : 1) } }

  /// Where each token stands in its text.
  var positions: [Int32] { texts.flatMap { text in (0..<text.count).map(Int32.init) } }
}
