import Files
import LinearAlgebra
import Tensors

/// The largest entries of a linear layer's change, as SHiRA keeps them.
struct SparseUpdate: Sendable {
  /// The module's path.
  let path: String
  /// The row of each entry, then the column of each, by rows.
  let places: [Int32]
  /// The entries, rounded once to the dtype that is written.
  let values: [Float]
  let result: ModuleResult

  /// Finds the largest entries of a change by magnitude, of equal ones the first.
  ///
  /// - Parameters:
  ///   - change: (out, in).
  ///   - count: so many are kept.
  ///   - rank: PEFT's r: the file has r·(in + out) entries, of which those that are not kept are 0.
  ///   - rankBefore: of what was changed before.
  ///   - weightNorm: ‖W‖ of the weight, where it was read.
  /// - Throws: `different` where a number is too large for the dtype.
  init(
    _ path: String, of change: Matrix<Float>, keeping count: Int, rank: Int, rankBefore: Int,
    weightNorm: Double?, as dtype: DType
  ) throws(PeftoolError) {
    let (rows, columns) = (change.rows, change.columns)
    let stored = rank * (rows + columns)
    precondition(count <= stored && stored <= rows * columns, "entries that are there")
    let kept = change.elements.keepingLargest(count: count)
    let places = kept.placesOfLargest(count: stored)
    let values = places.map { Double(kept[$0]) }
    self.path = path
    self.places =
      places.map { Int32($0 / columns) } + places.map { Int32($0 % columns) }
    self.values = values.rounded(to: dtype)
    guard self.values.allSatisfy(\.isFinite) else {
      throw PeftoolError(
        .different,
        "\(path.printable) would have numbers that are too large for \(dtype.rawValue)")
    }
    let before = change.squaredNorm
    let energy = values.squaredNorm
    result = ModuleResult(
      path: path, rankBefore: rankBefore, rank: rank, energyBefore: before, energy: energy,
      lostEnergy: max(0, before - energy), entries: .init(kept: count, total: rows * columns),
      weightNorm: weightNorm, isSparse: true)
  }
}
