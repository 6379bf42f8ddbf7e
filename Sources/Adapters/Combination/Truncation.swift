import Files
import LinearAlgebra

/// An update cut to a rank: the nearest of that rank, and what it keeps.
struct Truncation: Sendable {
  /// The factors.
  let pair: Pair
  /// ‖M‖² of what was cut.
  let wholeEnergy: Double
  /// What is kept of it.
  let energy: Double
  /// What tells why it has its rank; nil where no singular values were looked at.
  var spectrum: ModuleResult.Spectrum?

  /// All of an update.
  init(keeping pair: Pair) {
    let energy = pair.energy
    self.init(pair: pair, energy: energy, of: energy)
  }

  init(pair: Pair, energy: Double, of wholeEnergy: Double) {
    self.pair = pair
    self.energy = min(energy, wholeEnergy)
    self.wholeEnergy = wholeEnergy
  }

  /// The cut of the transpose.
  func transposed() -> Truncation {
    var cut = Truncation(
      pair: Pair(a: pair.b.transposed(), b: pair.a.transposed()), energy: energy, of: wholeEnergy)
    cut.spectrum = spectrum
    return cut
  }

  /// Cuts an update in its factors.
  ///
  /// - Throws: as `LowRankSVD`.
  init(of pair: Pair, to choice: RankChoice) throws(PeftoolError) {
    self.init(try LowRankSVD.of(pair.b, pair.a), to: choice)
  }

  private init(_ svd: SVD<Double>, to choice: RankChoice) {
    let values = svd.singularValues
    // PEFT has no update of rank 0.
    let rank = max(1, choice.rank(of: values))
    let energy = values.reduce(0) { $0 + $1 * $1 }
    let kept = values.prefix(rank).reduce(0) { $0 + $1 * $1 }
    self.init(pair: Pair(svd.truncated(to: rank)), energy: kept, of: energy)
    guard rank <= values.count else { return }
    let next = rank < values.count ? values[rank] : 0
    spectrum = ModuleResult.Spectrum(
      last: values[rank - 1] * values[rank - 1], next: next * next,
      effectiveRank: RankChoice.effectiveRank(of: values))
  }

  /// Cuts a whole update, by LAPACK in f64 or as the settings say by a randomized range finder in
  /// f32, of which the kept energy is what it measured.
  ///
  /// - Throws: as `SVD` and `RandomizedSVD`.
  init(
    of matrix: Matrix<Float>, to choice: RankChoice, _ decomposition: Decomposition
  ) throws(PeftoolError) {
    let squaredNorm = matrix.squaredNorm
    guard squaredNorm > 0 else {
      self.init(keeping: .nothing(rows: matrix.rows, columns: matrix.columns))
      return
    }
    let sampling = RandomizedSVD<Float>.Sampling(seed: decomposition.seed)
    let found: RandomizedSVD<Float>?
    switch choice {
    case .fixed(let rank) where !decomposition.isExact(for: matrix, rank: rank):
      found = try RandomizedSVD(of: matrix, rank: rank, sampling)
    case .energy(let share) where !decomposition.isExact(for: matrix, rank: 1):
      found = try RandomizedSVD(
        of: matrix, energyShare: share, squaredNorm: squaredNorm,
        maximumRank: Decomposition.maximumRandomizedRank(of: matrix), sampling)
    default: found = nil
    }
    guard let found, found.isConverged, found.keeps(choice, of: squaredNorm) else {
      self.init(try SVD(Matrix<Double>(matrix)), to: choice)
      return
    }
    self.init(found.svd, squaredNorm: squaredNorm)
  }

  private init(_ svd: SVD<Float>, squaredNorm: Double) {
    let kept = svd.singularValues.reduce(0) { $0 + Double($1) * Double($1) }
    self.init(pair: Pair(svd), energy: kept, of: squaredNorm)
    guard let last = svd.singularValues.last.map({ Double($0) }) else { return }
    spectrum = ModuleResult.Spectrum(last: last * last, next: nil, effectiveRank: nil)
  }
}

extension RandomizedSVD<Float> {
  /// Whether it has as much of the energy as is asked for.
  fileprivate func keeps(_ choice: RankChoice, of squaredNorm: Double) -> Bool {
    guard case .energy(let share) = choice else { return true }
    return svd.singularValues.reduce(0) { $0 + Double($1) * Double($1) } >= share * squaredNorm
  }
}
