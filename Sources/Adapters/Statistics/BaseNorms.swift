import Files
import LinearAlgebra
import Tensors

// The norms of a base's weight and of what DoRA changes in it.

extension BaseWeight {
  private static let blockElementCount = 1 << 18

  /// ‖W‖, summed in f64 in the order of the file; a block of 2 MB is in memory at a time.
  ///
  /// - Throws: `io`, `damaged` where a value is not finite.
  func norm() throws(PeftoolError) -> Double {
    var sum = 0.0
    let step = max(1, Self.blockElementCount / max(1, stored.columnCount))
    for start in stride(from: 0, to: stored.rowCount, by: step) {
      let values = try stored.values(rows: start..<min(start + step, stored.rowCount))
      sum += Double.sumOfSquares(values.span, at: 0, count: values.count)
    }
    return sum.squareRoot()
  }
}

extension BaseProjection {
  /// ‖W‖.
  var weightNorm: Double { squaredNorms.reduce(0, +).squareRoot() }

  /// ‖W' − W‖ of a DoRA update: W' − W = diag(f − 1)·W + diag(f)·d with f = m / ‖W + d‖ by rows.
  ///
  /// Precision: f64; where the two parts cancel each other, an error of 1e-8 of them.
  ///
  /// - Throws: `damaged` where a row of W + d has no length.
  func changeNorm(of term: Term, magnitude: [Double]) throws(PeftoolError) -> Double {
    let rank = term.rank
    var sum = 0.0
    for row in squaredNorms.indices {
      let b = term.b.elements[row * rank..<(row + 1) * rank].map { $0 * term.scaling }
      let f = try factor(ofRow: row, adding: b[...], magnitude: magnitude[row])
      sum += energy(ofRow: row, times: f - 1, adding: b.map { $0 * f }[...])
    }
    return sum.squareRoot()
  }
}
