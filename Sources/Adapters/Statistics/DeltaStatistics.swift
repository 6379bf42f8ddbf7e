/// What one module's update d = s·B·A is, in figures.
package struct DeltaStatistics: Sendable {
  /// The module's path.
  package let path: String
  /// The rows of A.
  package let rank: Int
  /// The singular values of d in descending order, min(out, in, rank) of them.
  package let singularValues: [Double]
  /// ‖W‖ of the weight that it changes; nil without a base.
  package let weightNorm: Double?
  /// ‖W' − W‖ of a DoRA update; nil without a base, and for LoRA, whose change is d.
  package let changeNorm: Double?

  /// ‖d‖, of Frobenius.
  package var norm: Double { singularValues.squaredNorm.squareRoot() }

  /// The exponential of the entropy of σ / Σσ; 0 for an update of zero.
  package var effectiveRank: Double { RankChoice.effectiveRank(of: singularValues) }

  /// Σσ² / σ₁²; 0 for an update of zero.
  package var stableRank: Double {
    guard let largest = singularValues.first, largest > 0 else { return 0 }
    return singularValues.reduce(0) { $0 + ($1 / largest) * ($1 / largest) }
  }

  /// ‖d‖ / ‖W‖; nil without a base, and where W is zero.
  package var share: Double? { Self.ratio(norm, weightNorm) }

  /// ‖W' − W‖ / ‖W‖ of a DoRA update; nil where one of them is, and where W is zero.
  package var changeShare: Double? { changeNorm.flatMap { Self.ratio($0, weightNorm) } }

  private static func ratio(_ norm: Double, _ whole: Double?) -> Double? {
    whole.flatMap { $0 > 0 ? norm / $0 : nil }
  }
}

extension [Double] {
  /// Σ x².
  var squaredNorm: Double { reduce(0) { $0 + $1 * $1 } }
}

extension [DeltaStatistics] {
  /// The norm of all updates together.
  package var norm: Double { reduce(0) { $0 + $1.norm * $1.norm }.squareRoot() }

  /// The norm of all weights that they change; nil without a base.
  package var weightNorm: Double? { Self.norm(map(\.weightNorm)) }

  /// The norm of all changes W' − W of DoRA together; nil where one is not known.
  package var changeNorm: Double? { Self.norm(map(\.changeNorm)) }

  private static func norm(_ norms: [Double?]) -> Double? {
    let known = norms.compactMap(\.self)
    return known.isEmpty || known.count < norms.count ? nil : known.squaredNorm.squareRoot()
  }
}
