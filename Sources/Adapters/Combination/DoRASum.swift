import Files
import LinearAlgebra

/// The weighted sum of LoRA and DoRA updates of one weight: a DoRA update, exactly.
///
/// An update k makes W'_k = diag(f_k)·(W + d_k) with d_k = s_k·B_k·A_k and f_k = m_k / ‖W + d_k‖ by
/// rows, 1 for LoRA. The sum W + Σ w_k·(W'_k − W) is diag(c)·(W + B·A) with c = 1 + Σ w_k·(f_k − 1),
/// A the A_k stacked, and B = [diag(w_k·s_k·f_k / c)·B_k] side by side; its magnitude is
/// m = c·‖W + B·A‖.
enum DoRASum {
  /// What a factor c has to be at least: it divides.
  static let leastFactor = 1e-3

  /// Sums updates; the factors are c.
  ///
  /// - Parameter magnitudes: DoRA's m for each term, nil for LoRA.
  /// - Throws: `unsupported` where a row's c is too small or negative, `damaged` where a row of
  ///   W + d has no length.
  static func combine(
    _ terms: [Term], magnitudes: [[Double]?], base: BaseProjection
  ) throws(PeftoolError) -> (pair: Pair, factors: [Double], magnitude: [Double]) {
    let outputs = terms[0].b.rows
    let rank = terms.reduce(0) { $0 + $1.rank }
    // A list of its own: to write into a matrix whose rows are lent out would copy all of it.
    var b: [Double] = []
    b.reserveCapacity(outputs * rank)
    var magnitude = [Double](repeating: 0, count: outputs)
    var scales = magnitude
    for row in 0..<outputs {
      var factors: [Double] = []
      var c = 1.0
      var start = 0
      for (term, m) in zip(terms, magnitudes) {
        var factor = 1.0
        if let m {
          var alone = [Double](repeating: 0, count: rank)
          for place in 0..<term.rank {
            alone[start + place] = term.scaling * term.b.elements[row * term.rank + place]
          }
          factor = try base.factor(ofRow: row, adding: alone[...], magnitude: m[row])
        }
        factors.append(factor)
        c += term.weight * (factor - 1)
        start += term.rank
      }
      guard c >= leastFactor else {
        throw PeftoolError(
          .unsupported,
          "row \(row) of the sum is \(c) times its length, expected \(leastFactor) and more: no DoRA "
            + "adapter can hold it, peftool merge can")
      }
      scales[row] = c
      var sum: [Double] = []
      for (term, factor) in zip(terms, factors) {
        for place in 0..<term.rank {
          sum.append(term.factor * factor / c * term.b.elements[row * term.rank + place])
        }
      }
      magnitude[row] = c * base.norm(ofRow: row, adding: sum[...])
      b += sum
    }
    return (
      Pair(
        a: Matrix(stacking: terms.map(\.a)),
        b: Matrix(rows: outputs, columns: rank, elements: b)), scales, magnitude
    )
  }
}
