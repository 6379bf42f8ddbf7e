import Files
import LinearAlgebra

/// Sums whose updates take each other away: what is left is rounding, and tells nothing.
enum Cancellation {
  /// What f64 leaves of such updates, as a share of their norms together.
  static let doubleRounding = 1e-13
  /// The same of sums of whole updates, in f32.
  static let floatRounding = 1e-6
  /// Norms by products of the factors with themselves know less than this share from 0 no more.
  private static let roughRounding = 1e-6

  /// Σ |w|·‖s·B·A‖.
  static func scale(of terms: [Term]) -> Double {
    terms.reduce(0) { $0 + $1.factor.magnitude * Pair(a: $1.a, b: $1.b).energy.squareRoot() }
  }

  /// Whether a sum in its factors is zero but for rounding.
  ///
  /// - Throws: as `LowRankSVD`.
  static func leavesNothing(of terms: [Term], in sum: Pair) throws(PeftoolError) -> Bool {
    let scale = scale(of: terms)
    guard sum.rank > 0, scale > 0 else { return true }
    guard sum.energy.squareRoot() <= roughRounding * scale else { return false }
    let values = try LowRankSVD.of(sum.b, sum.a).singularValues
    return values.squaredNorm.squareRoot() <= doubleRounding * scale
  }

  /// Whether a sum of whole updates is.
  static func leavesNothing(of terms: [Term], in sum: Matrix<Float>) -> Bool {
    sum.squaredNorm.squareRoot() <= floatRounding * scale(of: terms)
  }

  /// Whether c of a sum of DoRA updates, 1 + Σ w·(f − 1), is 1 but for rounding in every row.
  static func leavesNothing(of terms: [Term], inFactors factors: [Double]) -> Bool {
    let scale = terms.reduce(1) { $0 + $1.weight.magnitude }
    return factors.allSatisfy { ($0 - 1).magnitude <= doubleRounding * scale }
  }
}

extension Truncation {
  /// All of an update that is zero but for rounding.
  init(keepingZero pair: Pair) { self.init(pair: pair, energy: 0, of: 0) }
}
