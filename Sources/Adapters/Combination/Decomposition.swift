package import Files
package import LinearAlgebra

/// How whole matrices are decomposed.
package struct Decomposition: Sendable {
  /// Whether always by LAPACK.
  package var isExact = false
  /// Whether LAPACK computes in f64.
  package var isWide = true
  /// What the random numbers of a range finder are drawn from.
  package var seed: UInt64 = 0

  package init() {}

  /// The largest singular values and vectors of a matrix: LAPACK's, or as the settings say
  /// those of a randomized range finder in f32.
  ///
  /// - Throws: as `SVD` and `RandomizedSVD`.
  package func largest(_ rank: Int, of matrix: Matrix<Float>) throws(PeftoolError) -> SVD<Float> {
    if !isExact(for: matrix, rank: rank) {
      let found = try RandomizedSVD(of: matrix, rank: rank, .init(seed: seed))
      if found.isConverged { return found.svd }
    }
    guard isWide else { return try SVD(matrix).truncated(to: rank) }
    let exact = try SVD(Matrix<Double>(matrix)).truncated(to: rank)
    return SVD(
      u: Matrix(exact.u), singularValues: exact.singularValues.map { Float($0) },
      vt: Matrix(exact.vt))
  }

  /// σ² of the largest singular values, in descending order: so many, or of a matrix that is LAPACK's
  /// all.
  ///
  /// - Throws: as `SVD` and `RandomizedSVD`.
  func largestEnergies(_ count: Int, of matrix: Matrix<Float>) throws(PeftoolError) -> [Double] {
    if !isExact(for: matrix, rank: count) {
      let found = try RandomizedSVD(of: matrix, rank: count, .init(seed: seed))
      if found.isConverged { return found.svd.singularValues.map { Double($0) * Double($0) } }
    }
    return try SVD.singularValues(of: Matrix<Double>(matrix)).map { $0 * $0 }
  }

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
