/// What arithmetic has made of a module.
///
/// Energies are squared Frobenius norms of the change: of s·B·A, or where the base is at hand and the
/// adapter is of DoRA, of W' − W.
package struct ModuleResult: Sendable {
  /// The module's path.
  package let path: String
  /// The ranks of its updates together.
  package let rankBefore: Int
  /// The rank of the result; 0 where the module is gone.
  package let rank: Int
  /// The energy of what there was, of a method that makes something new of what it has made.
  package let energyBefore: Double
  /// The energy of the result.
  package let energy: Double
  /// The energy of the difference of both.
  package let lostEnergy: Double
  /// The entries that a density has kept, and of how many; nil without a density.
  package let entries: Entries?
  /// ‖W‖ of the weight that was changed; nil where it was not looked at.
  package var weightNorm: Double?
  /// Whether the result is a sparse change, whose rank is PEFT's number for its entries alone.
  package var isSparse = false
  /// What tells why the result has its rank; nil where its singular values were not looked at.
  package var spectrum: Spectrum?

  /// How near the weights are that an adapter was moved between; nil for what is not moved.
  package var overlap: Overlap?
  /// The numbers in A and B of the result; nil where they were not counted.
  package var parameterCount: Int?

  /// What the singular values say about a rank.
  package struct Spectrum: Equatable, Sendable {
    /// σ² of the last that is kept.
    package let last: Double
    /// σ² of the first that is not, 0 where there is none; nil where it was not looked for.
    package let next: Double?
    /// The exponential of the entropy of σ / Σσ; nil where not all were looked for.
    package let effectiveRank: Double?
  }

  /// A number of entries out of all.
  package struct Entries: Equatable, Sendable {
    /// How many are kept.
    package let kept: Int
    /// How many there were.
    package let total: Int
  }

  /// Whether there was nothing, or nothing but rounding.
  package var wasZero: Bool { !(energyBefore > 0) }

  /// What there was as a share of the weight, ‖change‖ / ‖W‖; nil where the weight was not looked at
  /// or is zero.
  package var share: Double? { Self.share(of: [self]) }

  /// The same of all changes and all their weights together.
  package static func share(of results: [ModuleResult]) -> Double? {
    let norms = results.compactMap(\.weightNorm)
    let whole = norms.squaredNorm.squareRoot()
    guard norms.count == results.count, whole > 0 else { return nil }
    return results.reduce(0) { $0 + $1.energyBefore }.squareRoot() / whole
  }

  /// The share of the energy that is kept, 1 − ‖difference‖² / ‖before‖²; 1 where nothing is lost,
  /// below 0 where the result is further away than nothing would be, and nil where there was nothing.
  package var keptEnergy: Double? { Self.keptEnergy(of: [self]) }

  /// What would be kept with one rank less; nil where that is not known.
  package var keptWithOneLess: Double? { kept(energy - (spectrum?.last ?? .nan)) }

  /// What would be kept with one rank more; nil where that is not known.
  package var keptWithOneMore: Double? { kept(energy + (spectrum?.next ?? .nan)) }

  private func kept(_ energy: Double) -> Double? {
    energyBefore > 0 && !energy.isNaN ? min(1, max(0, energy / energyBefore)) : nil
  }

  /// The share that modules keep together; nil where there was nothing in any.
  package static func keptEnergy(of results: [ModuleResult]) -> Double? {
    let before = results.reduce(0) { $0 + $1.energyBefore }
    return before > 0 ? 1 - results.reduce(0) { $0 + $1.lostEnergy } / before : nil
  }
}
