import Files
import LinearAlgebra

/// The leading singular vectors of a weight.
struct Subspaces: Sendable {
  /// Those of the outputs as columns, (out, k).
  let u: Matrix<Double>
  /// Those of the inputs as rows, (k, in).
  let vt: Matrix<Double>
  /// The vectors whose span is compared with another weight's.
  private let comparedCount: Int

  /// Of all directions at most one in so many is compared: of more any two weights have a good part in
  /// common, since the leading vectors of unrelated ones overlap by k / n.
  private static let leastDirectionsOfCompared = 4

  /// Decomposes a weight, W or W·diag(gains).
  ///
  /// - Throws: `io`, `damaged` where a value is not finite, and as `SVD`.
  init(
    of weight: BaseWeight, gains: [Double]? = nil, _ options: Transfer.Options
  ) throws(PeftoolError) {
    let least = min(weight.outputCount, weight.inputCount)
    let count = min(options.subspace, least)
    comparedCount = max(1, min(count, least / Self.leastDirectionsOfCompared))
    do throws(PeftoolError) {
      var values = try weight.values()
      if let gains { values.scale(columns: gains.map { Float($0) }) }
      let svd = try options.decomposition.largest(count, of: values)
      u = Matrix<Double>(svd.u)
      vt = Matrix<Double>(svd.vt)
    } catch {
      throw weight.stored.at(error)
    }
  }

  private init(u: Matrix<Double>, vt: Matrix<Double>, comparedCount: Int) {
    self.u = u
    self.vt = vt
    self.comparedCount = comparedCount
  }

  /// Where the vectors go with the streams that they are of: Rᵀ·U, and V·R.
  func mapped(outputs: Matrix<Double>?, inputs: Matrix<Double>?) -> Subspaces {
    Subspaces(
      u: outputs.map { product($0, u, transposing: .left) } ?? u,
      vt: inputs.map { product(vt, $0) } ?? vt, comparedCount: comparedCount)
  }

  /// φ on both sides, whatever the signs and the order of the vectors.
  func overlap(with other: Subspaces) -> ModuleResult.Overlap {
    let count = min(comparedCount, other.comparedCount)
    let outputs = product(
      u.firstColumns(count), other.u.firstColumns(count), transposing: .left)
    let inputs = product(
      vt.firstRows(count), other.vt.firstRows(count), transposing: .right)
    func share(_ matrix: Matrix<Double>) -> Double {
      min(1, matrix.elements.squaredNorm / Double(count))
    }
    return ModuleResult.Overlap(outputs: share(outputs), inputs: share(inputs))
  }

  /// What of the factors lies in the subspaces: U·Uᵀ·B and A·V·Vᵀ.
  func inside(_ pair: Pair) -> Pair {
    Pair(
      a: product(product(pair.a, vt, transposing: .right), vt),
      b: product(u, product(u, pair.b, transposing: .left)))
  }

  /// What another weight's subspaces have, inside, and what they have not, outside.
  func counterpart(of pair: Pair, in other: Subspaces) -> Pair {
    let own = other.inside(pair)
    let (kept, rest) = (inside(own), pair.minus(own))
    let outside = rest.minus(inside(rest))
    return Pair(
      a: Matrix(
        rows: kept.a.rows, columns: kept.a.columns,
        elements: zip(kept.a.elements, outside.a.elements).map(+)),
      b: Matrix(
        rows: kept.b.rows, columns: kept.b.columns,
        elements: zip(kept.b.elements, outside.b.elements).map(+)))
  }

  /// For each pair of vectors the sign that brings it nearer to another weight's, and the mean cosine
  /// that they then have.
  func signs(nearTo other: Subspaces) -> (values: [Double], alignment: Double) {
    let cosines = (0..<vt.rows).map { pair in
      var sum = 0.0
      for row in 0..<u.rows {
        sum +=
          u.elements[row * u.columns + pair] * other.u.elements[row * other.u.columns + pair]
      }
      for column in 0..<vt.columns {
        sum +=
          vt.elements[pair * vt.columns + column] * other.vt.elements[pair * vt.columns + column]
      }
      return sum / 2
    }
    let alignment = cosines.reduce(0) { $0 + $1.magnitude } / Double(max(1, cosines.count))
    return (cosines.map { $0 < 0 ? -1 : 1 }, min(1, alignment))
  }

  /// U·D·U_sᵀ·B and A·V_s·D·Vᵀ for the signs D.
  func image(of pair: Pair, from other: Subspaces, signs: [Double]) -> Pair {
    let right = product(pair.a, other.vt, transposing: .right).scaled(columns: signs)
    let left = product(other.u, pair.b, transposing: .left).scaled(rows: signs)
    return Pair(a: product(right, vt), b: product(u, left))
  }
}

extension Matrix<Float> {
  /// Multiplies each column by its factor.
  fileprivate mutating func scale(columns factors: [Float]) {
    precondition(factors.count == columns, "a factor a column")
    var elements = self.elements
    for row in 0..<rows {
      for column in 0..<columns { elements[row * columns + column] *= factors[column] }
    }
    self.elements = elements
  }
}

extension Pair {
  /// Each factor less another's.
  fileprivate func minus(_ other: Pair) -> Pair {
    var (a, b) = (a, b)
    a.subtract(other.a)
    b.subtract(other.b)
    return Pair(a: a, b: b)
  }
}
