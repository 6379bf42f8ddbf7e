import Files
import LinearAlgebra

/// What an update and a pruned one change, and what lies between them, as squared norms.
struct PrunedEnergy: Sendable {
  private(set) var before = 0.0
  private(set) var after = 0.0
  private(set) var lost = 0.0

  /// Of B·A alone.
  init(of whole: Pair, pruned: Pair) {
    before = whole.energy
    after = pruned.energy
    lost = Concatenation.difference(of: whole, pruned).energy
  }

  /// Of DoRA's whole change, W' − W = diag(f − 1)·W + diag(f)·B·A with f = m / ‖W + B·A‖ by rows.
  ///
  /// The pruned update has the same f, and so m = f·‖W + B'·A'‖.
  /// - Parameter base: knows W·Âᵀ, Â the A of both below each other.
  /// - Returns: the energies and the new m.
  /// - Throws: `damaged` where a row of W + B·A has no length.
  static func ofDoRA(
    _ whole: Pair, pruned: Pair, magnitude: [Double], base: BaseProjection
  ) throws(PeftoolError) -> (energy: PrunedEnergy, magnitude: [Double]) {
    var energy = PrunedEnergy()
    var result: [Double] = []
    for row in magnitude.indices {
      let b = whole.b.elements[row * whole.rank..<(row + 1) * whole.rank]
      let kept = pruned.b.elements[row * pruned.rank..<(row + 1) * pruned.rank]
      let old = Array(b) + [Double](repeating: 0, count: pruned.rank)
      let new = [Double](repeating: 0, count: whole.rank) + kept
      let factor = try base.factor(ofRow: row, adding: old[...], magnitude: magnitude[row])
      let energies = (
        before: base.energy(ofRow: row, times: factor - 1, adding: old.map { $0 * factor }[...]),
        after: base.energy(ofRow: row, times: factor - 1, adding: new.map { $0 * factor }[...]),
        lost: base.energy(
          ofRow: row, times: 0, adding: zip(old, new).map { factor * ($0 - $1) }[...])
      )
      energy.before += energies.before
      energy.after += energies.after
      energy.lost += energies.lost
      result.append(factor * base.norm(ofRow: row, adding: new[...]))
    }
    return (energy, result)
  }

  private init() {}

  /// With what a bias changes, which is kept.
  func adding(bias: [Double]?) -> PrunedEnergy {
    var sum = self
    let energy = (bias ?? []).reduce(0) { $0 + $1 * $1 }
    sum.before += energy
    sum.after += energy
    return sum
  }
}

extension Concatenation {
  /// B·A − B'·A' as one product.
  static func difference(of pair: Pair, _ other: Pair) -> Pair {
    Pair(
      a: Matrix(stacking: [pair.a, other.a]),
      b: Matrix(joining: [pair.b, other.b.scaled(by: -1)]))
  }
}
