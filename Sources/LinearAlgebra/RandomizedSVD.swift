package import Files

/// The largest singular values and vectors of a matrix that is known by its products.
///
/// A random block Ω is sent through M and Mᵀ in turn, and every M·(Mᵀ·M)ʲ·Ω is kept: the basis Q of
/// this Krylov space grows until the largest values of QᵀM no longer do, and the decomposition is
/// that of Q·QᵀM, cut to the rank. The matrix is passed over twice for a block and never held.
/// Precision: that of its products. Values come out low rather than high; where they have converged by
/// less than the tolerance, as each block's gain is a small part of the one before. Sources: Halko,
/// Martinsson, Tropp (2011) for the sample; Musco, Musco (2015), algorithm 2, for the Krylov space,
/// which values that hardly decay, as noise has them, ask for.
///
/// Memory: for k blocks of w columns (rows + columns)·k·w elements three times.
package struct RandomizedSVD<Scalar: BLASScalar>: Sendable {
  /// How the range is sampled.
  package struct Sampling: Sendable {
    /// The seed of the random numbers.
    package let seed: UInt64
    /// The columns of a block beyond the rank.
    package let oversampling: Int
    /// The relative change of a value by one more block at which it has converged.
    package let tolerance: Double
    /// The blocks after which no more is tried.
    package let maximumBlockCount: Int

    /// Ten columns beyond the rank, values that change by less than 5e-4 and 12 blocks, unless told
    /// otherwise.
    package init(
      seed: UInt64, oversampling: Int = 10, tolerance: Double = 5e-4, maximumBlockCount: Int = 12
    ) {
      precondition(oversampling >= 0 && tolerance >= 0 && maximumBlockCount > 0, "sizes")
      self.seed = seed
      self.oversampling = oversampling
      self.tolerance = tolerance
      self.maximumBlockCount = maximumBlockCount
    }
  }

  /// The decomposition, cut to the rank.
  package let svd: SVD<Scalar>
  /// All singular values of QᵀM, in descending order.
  package let projectedValues: [Double]
  /// Whether the values of the rank have converged, or the basis spans all that there is.
  package let isConverged: Bool

  /// Decomposes a matrix to a rank, or to its full rank where that is less.
  ///
  /// - Parameter start: what the first block is made of in place of random numbers, (columns, w):
  ///   right singular vectors of a matrix near to this one, say.
  /// - Throws: what the products throw, and what `SVD` does.
  package init(
    of matrix: some LinearOperator<Scalar>, rank: Int, _ sampling: Sampling,
    startingWith start: Matrix<Scalar>? = nil
  ) throws(PeftoolError) {
    precondition(rank >= 0, "no negative rank")
    let least = min(matrix.rows, matrix.columns)
    let width = min(least, rank + sampling.oversampling)
    var space = KrylovSpace(
      QR(try matrix.times(start ?? Self.normals(matrix.columns, width, sampling.seed))).q)
    var values: [Scalar] = []
    var isConverged = false
    while true {
      let image = try matrix.transposedTimes(space.last)
      space.append(image: image)
      let next = try SVD.singularValues(of: QR(space.images).r)
      isConverged =
        width == 0 || space.columnCount == least
        || Self.agree(values, next, count: rank, sampling.tolerance)
      guard !isConverged, space.blockCount < sampling.maximumBlockCount else { break }
      // Where nothing new comes the space has all that there is of the matrix.
      isConverged = !space.append(
        block: try matrix.times(QR(image).q), width: min(width, least - space.columnCount))
      guard !isConverged else { break }
      values = next
    }
    let found = try space.decomposition()
    svd = found.truncated(to: rank)
    projectedValues = found.singularValues.map { Double($0) }
    self.isConverged = isConverged
  }

  /// Decomposes a matrix to the least rank that keeps a share of ‖M‖²_F, its energy.
  ///
  /// Starts with rank 16 and doubles it, each time from the beginning, so the result is that of the
  /// last rank asked for, cut. Where no rank up to the maximum keeps the share, that of the
  /// maximum. In Float a share within 1e-6 of 1 may never be reached.
  ///
  /// - Throws: what the products throw, and what `SVD` does.
  package init(
    of matrix: some LinearOperator<Scalar>, energyShare: Double, squaredNorm: Double,
    maximumRank: Int = .max, _ sampling: Sampling
  ) throws(PeftoolError) {
    precondition((0...1).contains(energyShare), "a share")
    let last = min(matrix.rows, matrix.columns, maximumRank)
    var rank = min(16, last)
    while true {
      let found = try RandomizedSVD(of: matrix, rank: rank, sampling)
      let needed = found.rank(keeping: energyShare * squaredNorm)
      if let needed, needed <= rank {
        self.init(
          svd: found.svd.truncated(to: needed), projectedValues: found.projectedValues,
          isConverged: found.isConverged)
        return
      }
      if rank == last {
        self = found
        return
      }
      // Where values beyond the rank have what is missing, they have not converged.
      rank = min(max(2 * rank, needed ?? 0), last)
    }
  }

  private init(svd: SVD<Scalar>, projectedValues: [Double], isConverged: Bool) {
    self.svd = svd
    self.projectedValues = projectedValues
    self.isConverged = isConverged
  }

  /// Whether the first values are the same as before to the tolerance.
  ///
  /// Below 1e-5 of the largest a value of the Krylov space in Float is rounding.
  private static func agree(
    _ before: [Scalar], _ after: [Scalar], count: Int, _ tolerance: Double
  ) -> Bool {
    guard !before.isEmpty else { return false }
    let least = 1e-5 * Double(after.first ?? 0)
    return zip(before, after).prefix(count).allSatisfy {
      Double($1 - $0).magnitude <= max(tolerance * Double($1), least)
    }
  }

  /// How many of the values it takes for so much energy, if they have it.
  private func rank(keeping energy: Double) -> Int? {
    var kept = 0.0
    for (index, value) in projectedValues.enumerated() {
      if kept >= energy { return index }
      kept += value * value
    }
    return kept >= energy ? projectedValues.count : nil
  }

  /// Normal numbers, (rows, columns), of which a column is the same whatever their number.
  private static func normals(_ rows: Int, _ columns: Int, _ seed: UInt64) -> Matrix<Scalar> {
    let numbers = RandomNumbers(seed: seed, stream: 0)
    let transposed = (0..<rows * columns).map { Scalar(numbers.normal($0)) }
    return Matrix(rows: columns, columns: rows, elements: transposed).transposed()
  }
}
