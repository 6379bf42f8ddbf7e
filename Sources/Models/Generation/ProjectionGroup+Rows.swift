import Checkpoints
import LinearAlgebra
import Tensors

// Linear layers for one token or a few: the weights are read once, and nothing is laid out for it.
extension ProjectionGroup {
  /// The most tokens for which reading the weights a token at a time is faster than laying them out
  /// in panels for all.
  static let fewTokens = 4
  /// The most outputs of a piece of work.
  private static let pieceWidth = 64

  /// As `forward`, with adapters whose gains are known.
  ///
  /// A LoRA costs rank·(inputs + outputs) here: its factors are applied one after the other.
  func forwardFew(_ x: Rows, into outputs: [Rows], adding: Bool = false, _ work: Workspace) {
    precondition(x.count <= Self.fewTokens, "few tokens")
    let products = lowRankInputs(x, work)
    let pieces = projections.indices.flatMap { place in
      (0..<projections[place].outputs).cut(into: Self.pieceWidth).map { (place, $0) }
    }
    work.team.forEach(pieces.count) { worker, item in
      let (place, rows) = pieces[item]
      projections[place].forwardFew(
        x, products[place], rows: rows, into: outputs[place].columns(rows), adding: adding,
        work.scratch(of: worker))
    }
  }

  /// The floats of scratch that a thread needs for `forwardFew`.
  static func fewScratchCount(inputs: Int) -> Int { fewTokens * pieceWidth + inputs }

  /// Finds the gain m / ‖W + s·B·A‖ of each output of a layer with DoRA, which `forwardFew` needs.
  func findGains(_ work: Workspace) {
    let pieces = projections.indices.filter { projections[$0].adapter?.magnitude != nil }
      .flatMap { place in
        (0..<projections[place].outputs).cut(into: Self.pieceWidth).map { (place, $0) }
      }
    work.team.forEach(pieces.count) { worker, item in
      projections[pieces[item].0].findGains(rows: pieces[item].1, work.scratch(of: worker))
    }
  }

  /// u = s·A·x of each layer with an adapter, (N, rank).
  private func lowRankInputs(_ x: Rows, _ work: Workspace) -> [Rows?] {
    guard projections.contains(where: { $0.adapter != nil }) else {
      return projections.map { _ in nil }
    }
    var start = 0
    let products = projections.map { projection -> Rows? in
      guard let rank = projection.adapter?.fullRank else { return nil }
      defer { start += rank }
      return work.lowRank(x.count, rank, at: start)
    }
    work.team.forEach(projections.count) { _, place in
      guard let adapter = projections[place].adapter, let u = products[place] else { return }
      for row in 0..<x.count {
        adapter.scaledA.multiplyRows(by: x.rows(row..<row + 1), into: u.rows(row..<row + 1))
      }
    }
    return products
  }
}

extension Projection {
  /// Some outputs of few tokens; u is s·A·x.
  fileprivate func forwardFew(
    _ x: Rows, _ u: Rows?, rows: Range<Int>, into y: Rows, adding: Bool, _ scratch: Rows
  ) {
    let own = x.count * rows.count
    let result = adding ? scratch.reshaped(x.count, rows.count) : y
    weight.multiply(
      rows: rows, by: x, into: result, tile: scratch.columns(own..<scratch.columns))
    if let adapter, let u {
      result.multiply(u, adapter.all.b.columns(rows), adding: true)
    }
    finish(result, rows: rows, gains: adapter?.magnitude == nil ? nil : adapter?.gains)
    guard adding else { return }
    for row in 0..<x.count { y.rows(row..<row + 1).add(result.rows(row..<row + 1)) }
  }

  /// The gains of some outputs, as `forward` finds them.
  fileprivate func findGains(rows: Range<Int>, _ scratch: Rows) {
    guard let adapter, let magnitude = adapter.magnitude else { return }
    for row in rows {
      var squares = 0.0
      for columns in (0..<inputs).cut(into: Self.gainDepth) {
        let tile = scratch.reshaped(1, columns.count)
        fill(rows: row..<row + 1, columns: columns, into: tile)
        squares += tile.withSpan { Float.sumOfSquares($0.span, at: 0, count: $0.count) }
      }
      let norm = Float(squares.squareRoot())
      adapter.norms[0, row] = norm
      adapter.gains[0, row] = magnitude.values[0, row] / norm
    }
  }

  /// The inputs that are widened at a time.
  private static let gainDepth = 256
}
