import Fixtures
import LinearAlgebra

/// Sums of Double's rounding errors over the sizes of these tests, relative to the largest value.
let doubleTolerance = 1e-13
/// The same of Float's.
let floatTolerance = 2e-5

/// Matrices to test with, and what is wanted of their factors by its definition.
enum Matrices {
  /// Numbers in -1...1.
  static func random(_ rows: Int, _ columns: Int, seed: Int = 1) -> Matrix<Double> {
    var random = SplitMix64(seed: seed)
    return Matrix(
      rows: rows, columns: columns,
      elements: (0..<rows * columns).map { _ in Double.random(in: -1...1, using: &random) })
  }

  /// A matrix of given singular values between random orthonormal factors.
  static func graded(_ rows: Int, _ columns: Int, _ values: [Double]) -> Matrix<Double> {
    let u = QR(random(rows, values.count, seed: 2)).q
    let v = QR(random(columns, values.count, seed: 3)).q
    return product(scalingColumns(u, values), v, transposing: .right)
  }

  /// 1/(i + j + 1), whose condition grows as 33 to the power of its size.
  static func hilbert(_ size: Int) -> Matrix<Double> {
    var matrix = Matrix<Double>(rows: size, columns: size)
    for i in 0..<size { for j in 0..<size { matrix[i, j] = 1 / Double(i + j + 1) } }
    return matrix
  }

  static func scalingColumns(_ matrix: Matrix<Double>, _ factors: [Double]) -> Matrix<Double> {
    var scaled = matrix
    for i in 0..<matrix.rows { for j in 0..<matrix.columns { scaled[i, j] *= factors[j] } }
    return scaled
  }

  /// The sum of products by its definition, in Double.
  static func plainProduct(_ a: Matrix<Double>, _ b: Matrix<Double>) -> Matrix<Double> {
    var result = Matrix<Double>(rows: a.rows, columns: b.columns)
    for i in 0..<a.rows {
      for j in 0..<b.columns {
        result[i, j] = (0..<a.columns).reduce(0) { $0 + a[i, $1] * b[$1, j] }
      }
    }
    return result
  }

  /// U·diag(σ)·Vᵀ.
  static func rebuilt(_ svd: SVD<some BLASScalar>) -> Matrix<Double> {
    plainProduct(
      scalingColumns(Matrix(svd.u), svd.singularValues.map { Double($0) }), Matrix(svd.vt))
  }

  /// How far the columns of a matrix are from orthonormal.
  static func skew(ofColumns matrix: Matrix<some BLASScalar>) -> Double {
    let matrix = Matrix<Double>(matrix)
    var gram = plainProduct(matrix.transposed(), matrix)
    for i in 0..<gram.rows { gram[i, i] -= 1 }
    return gram.elements.map(\.magnitude).max() ?? 0
  }

  /// The largest difference of two elements.
  static func distance(
    _ a: Matrix<some BLASScalar>, _ b: Matrix<some BLASScalar>
  ) -> Double {
    precondition(a.rows == b.rows && a.columns == b.columns)
    return zip(a.elements, b.elements).map { (Double($0) - Double($1)).magnitude }.max() ?? 0
  }

  static func squaredNorm(_ matrix: Matrix<Double>) -> Double {
    matrix.elements.reduce(0) { $0 + $1 * $1 }
  }
}
