import LinearAlgebra

/// How whole matrices are decomposed.
package struct Decomposition: Sendable {
  /// Whether always by LAPACK.
  package var isExact = false
  /// What the random numbers of a range finder are drawn from.
  package var seed: UInt64 = 0

  package init() {}

  /// Up to this least size LAPACK is as quick.
  private static let leastSizeOfRandomized = 256

  /// Whether a matrix is LAPACK's: where that is wished, or the matrix small, or so much of it
  /// wanted that a range finder would have to look at all.
  func isExact(for matrix: Matrix<Float>, rank: Int) -> Bool {
    isExact || min(matrix.rows, matrix.columns) <= Self.leastSizeOfRandomized
      || rank > Self.maximumRandomizedRank(of: matrix)
  }

  /// The largest rank that is looked for by a range finder.
  static func maximumRandomizedRank(of matrix: Matrix<Float>) -> Int {
    min(matrix.rows, matrix.columns) / 8
  }
}
