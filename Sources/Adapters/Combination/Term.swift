package import LinearAlgebra

/// What one adapter does to a module, w·s·B·A, in numbers.
struct Term: Sendable {
  /// A, (rank, in); a convolution's channels and kernel are one dimension.
  let a: Matrix<Double>
  /// B, (out, rank).
  let b: Matrix<Double>
  /// The factor s that the adapter has on B·A.
  let scaling: Double
  /// The user's weight w.
  let weight: Double
  /// The share of the entries that are kept, of methods that drop some.
  var density = 1.0
  /// b of `lora_bias`, (out), without weight and scaling.
  var bias: [Double]?

  /// The factor on B·A in the sum.
  var factor: Double { weight * scaling }
  /// The rows of A.
  var rank: Int { a.rows }
}

/// The factors of a combined update B·A, whose scaling is 1.
struct Pair: Sendable {
  /// A, (rank, in).
  let a: Matrix<Double>
  /// B, (out, rank).
  let b: Matrix<Double>

  /// The rows of A.
  var rank: Int { a.rows }

  init(a: Matrix<Double>, b: Matrix<Double>) {
    precondition(a.rows == b.columns, "factors of one rank")
    self.a = a
    self.b = b
  }

  /// Each row of B·A times a number.
  func scaled(rows factors: [Double]) -> Pair { Pair(a: a, b: b.scaled(rows: factors)) }

  /// The factors of B·A / s, both divided by √s.
  func divided(by scaling: Double) -> Pair {
    let factor = 1 / scaling.squareRoot()
    return Pair(a: a.scaled(by: factor), b: b.scaled(by: factor))
  }

  /// An update that changes nothing; of rank 1, since PEFT has none of rank 0.
  static func nothing(rows: Int, columns: Int) -> Pair {
    Pair(a: Matrix(rows: 1, columns: columns), b: Matrix(rows: rows, columns: 1))
  }

  /// The factors of a decomposition, the root of each singular value on both sides.
  init(_ svd: SVD<some BLASScalar>) {
    let roots = svd.singularValues.map { Double($0).squareRoot() }
    self.init(
      a: Matrix<Double>(svd.vt).scaled(rows: roots),
      b: Matrix<Double>(svd.u).scaled(columns: roots))
  }
}

extension Matrix<Double> {
  /// Each row times a number.
  package func scaled(rows factors: [Double]) -> Matrix {
    var scaled = self
    scaled.elements = (0..<rows).flatMap { row in
      elements[row * columns..<(row + 1) * columns].map { $0 * factors[row] }
    }
    return scaled
  }

  /// Each column times a number.
  func scaled(columns factors: [Double]) -> Matrix {
    var scaled = self
    scaled.elements = (0..<rows).flatMap { row in
      zip(elements[row * columns..<(row + 1) * columns], factors).map { $0 * $1 }
    }
    return scaled
  }

  /// Every element times a number.
  package func scaled(by factor: Double) -> Matrix {
    var scaled = self
    scaled.elements = elements.map { $0 * factor }
    return scaled
  }

  /// A range of its columns.
  func columns(_ range: Range<Int>) -> Matrix {
    Matrix(
      rows: rows, columns: range.count,
      elements: (0..<rows).flatMap { row in
        elements[row * columns + range.lowerBound..<row * columns + range.upperBound]
      })
  }
}
