import Checkpoints
import LinearAlgebra

/// The input embedding: a row of a table for each token.
struct TokenEmbedding: Sendable {
  /// The table, (vocabulary, hidden).
  let table: ModuleWeight
  /// `pad_token_id`: torch gives its row no gradient here (`padding_idx`).
  let padding: Int?

  /// The columns of a piece of work of the backward pass.
  private static let pieceWidth = 64

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

  /// Adds each token's dx to the gradient of its row, in the order of the tokens.
  func backward(_ dx: Rows, _ tokens: [Int32], _ work: Workspace) {
    precondition(tokens.count == dx.count && dx.columns == table.inputs, "a row a token")
    var rows: [(place: Int, row: Int)] = []
    let gradient: Rows
    switch table {
    case .frozen: return
    case .whole(let parameter):
      gradient = parameter.gradient
      rows = tokens.enumerated().map { ($0, Int($1)) }
    case .rows(_, let trained):
      gradient = trained.parameter.gradient
      for (place, token) in tokens.enumerated() {
        let token = Int(token)
        if let own = trained.within(token..<token + 1).first { rows.append((place, own.place)) }
      }
    }
    if let padding { rows.removeAll { Int(tokens[$0.place]) == padding } }
    let parts = (0..<dx.columns).cut(into: Self.pieceWidth)
    work.team.forEach(parts.count) { [rows] _, item in
      let (gradient, dx) = (gradient.columns(parts[item]), dx.columns(parts[item]))
      for (place, row) in rows {
        gradient.rows(row..<row + 1).add(dx.rows(place..<place + 1))
      }
    }
  }
}
