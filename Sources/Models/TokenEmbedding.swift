/// The input embedding: a row of a frozen table for each token.
struct TokenEmbedding: Sendable {
  /// The table, (vocabulary, hidden).
  let table: FrozenWeight

  /// Shapes: x (N, hidden); each token is less than the vocabulary.
  func forward(_ tokens: [Int32], into x: Rows, _ work: Workspace) {
    precondition(tokens.count == x.count && x.columns == table.inputs, "a row a token")
    work.forTokens(tokens.count) { _, part in
      for place in part {
        let token = Int(tokens[place])
        table.widen(
          rows: token..<token + 1, columns: 0..<table.inputs, into: x.rows(place..<place + 1))
      }
    }
  }
}
