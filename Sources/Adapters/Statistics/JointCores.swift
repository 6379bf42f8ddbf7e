import Files
import LinearAlgebra

/// Two updates in one pair of bases: d₁ = Q·K₁·Pᵀ and d₂ = Q·K₂·Pᵀ, of which the cores are kept.
///
/// Q and P are those of [B₁ B₂] and [A₁; A₂]ᵀ, so that norms, inner products, differences and
/// subspaces of the updates are those of the cores, (k, l) with k and l at most r₁ + r₂. Precision:
/// f64, with an error of some 1e-16 of each update's factors, also for the difference of two
/// updates that are almost the same.
struct JointCores: Sendable {
  /// K₁.
  let left: Matrix<Double>
  /// K₂.
  let right: Matrix<Double>

  /// Singular values up to this share of the largest are none: factors in F32 cannot tell them from
  /// 0.
  private static let leastShare = 1e-6

  /// Puts two updates of one module into common bases.
  init(_ left: Term, _ right: Term) {
    let b = QR(Matrix(joining: [left.b, right.b])).r
    let a = QR(Matrix(stacking: [left.a, right.a]).transposed()).r
    func core(_ term: Term, _ range: Range<Int>) -> Matrix<Double> {
      product(b.columns(range), a.columns(range), transposing: .right).scaled(by: term.factor)
    }
    self.left = core(left, 0..<left.rank)
    self.right = core(right, left.rank..<left.rank + right.rank)
  }

  /// ⟨d₁, d₂⟩.
  var inner: Double { zip(left.elements, right.elements).reduce(0) { $0 + $1.0 * $1.1 } }

  /// ‖d₁ − d₂‖.
  var difference: Double { zip(left.elements, right.elements).map { $0 - $1 }.norm }

  /// How far the spaces agree in which the updates write, and from which they read:
  /// ‖U₁ᵀU₂‖² / min(k₁, k₂) of the left singular vectors, and the same of the right ones; nil where
  /// an update is zero.
  ///
  /// 1 where one space holds the other, 0 where they are orthogonal. Where factors have full rank,
  /// the spaces are those of the columns of B and of the rows of A.
  ///
  /// - Throws: as `SVD`.
  func overlaps() throws(PeftoolError) -> (output: Double, input: Double)? {
    let first = try SVD(left).significant(Self.leastShare)
    let second = try SVD(right).significant(Self.leastShare)
    let least = Double(min(first.singularValues.count, second.singularValues.count))
    guard least > 0 else { return nil }
    let output = product(first.u, second.u, transposing: .left).elements.squaredNorm
    let input = product(first.vt, second.vt, transposing: .right).elements.squaredNorm
    return (min(1, output / least), min(1, input / least))
  }
}

extension SVD<Double> {
  /// Without the values that are no more than a share of the largest.
  fileprivate func significant(_ share: Double) -> SVD {
    let least = (singularValues.first ?? 0) * share
    return truncated(to: singularValues.count { $0 > least })
  }
}

extension [Double] {
  /// √Σx².
  var norm: Double { squaredNorm.squareRoot() }
}
