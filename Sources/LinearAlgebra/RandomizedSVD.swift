package import Files

/// The largest singular values and vectors of a matrix that is known by its products.
///
/// A random sample of the matrix's range, sharpened by power iterations, gives an orthonormal Q of
/// rank + oversampling columns; the decomposition is that of Q·QᵀM, cut to the rank. The matrix is
/// passed over 2 + 2·(power iterations) times and never held. Precision: that of its products.
/// Values that do not decay, as noise has them, come out a few per cent low; the residual tells.
/// Source: Halko, Martinsson, Tropp (2011), algorithms 4.4 and 5.1.
package struct RandomizedSVD<Scalar: BLASScalar>: Sendable {
  /// How the range is sampled.
  package struct Sampling: Sendable {
    /// The seed of the random numbers.
    package let seed: UInt64
    /// How often the sample is multiplied by M·Mᵀ.
    package let powerIterations: Int
    /// The columns that are sampled beyond the rank.
    package let oversampling: Int

    /// Two power iterations and ten columns beyond the rank, unless told otherwise.
    package init(seed: UInt64, powerIterations: Int = 2, oversampling: Int = 10) {
      precondition(powerIterations >= 0 && oversampling >= 0, "no negative count")
      self.seed = seed
      self.powerIterations = powerIterations
      self.oversampling = oversampling
    }
  }

  /// The decomposition, cut to the rank.
  package let svd: SVD<Scalar>
  /// The singular values of QᵀM, those of the oversampled columns too, in descending order.
  package let projectedValues: [Double]

  /// Decomposes a matrix to a rank, or to its full rank where that is less.
  ///
  /// - Throws: what the products throw, and what `SVD` does.
  package init(
    of matrix: some LinearOperator<Scalar>, rank: Int, _ sampling: Sampling
  ) throws(PeftoolError) {
    precondition(rank >= 0, "no negative rank")
    let width = min(matrix.rows, matrix.columns, rank + sampling.oversampling)
    var q = QR(try matrix.times(Self.normals(matrix.columns, width, sampling.seed))).q
    for _ in 0..<sampling.powerIterations {
      q = QR(try matrix.times(QR(try matrix.transposedTimes(q)).q)).q
    }
    let projected = try SVD(try matrix.transposedTimes(q).transposed())
    projectedValues = projected.singularValues.map { Double($0) }
    let core = projected.truncated(to: rank)
    svd = SVD(u: product(q, core.u), singularValues: core.singularValues, vt: core.vt)
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
        self.init(svd: found.svd.truncated(to: needed), projectedValues: found.projectedValues)
        return
      }
      if rank == last {
        self = found
        return
      }
      // Where the oversampled columns have what is missing, their vectors are not yet good.
      rank = min(max(2 * rank, needed ?? 0), last)
    }
  }

  private init(svd: SVD<Scalar>, projectedValues: [Double]) {
    self.svd = svd
    self.projectedValues = projectedValues
  }

  /// ‖M − Q·QᵀM‖_F, what the sampled range leaves out, from the caller's ‖M‖²_F.
  ///
  /// Exact but for rounding, as ‖M‖² = ‖QᵀM‖² + ‖M − Q·QᵀM‖²; but a difference: in Float it
  /// says nothing below some 1e-3 of ‖M‖_F, in Double below 1e-7.
  package func residualNorm(squaredNorm: Double) -> Double {
    distance(squaredNorm, projectedValues.count)
  }

  /// ‖M − U·diag(σ)·Vᵀ‖_F, what the cut decomposition leaves out, as precise as `residualNorm`.
  package func truncationNorm(squaredNorm: Double) -> Double {
    distance(squaredNorm, svd.singularValues.count)
  }

  private func distance(_ squaredNorm: Double, _ count: Int) -> Double {
    max(0, squaredNorm - projectedValues.prefix(count).reduce(0) { $0 + $1 * $1 }).squareRoot()
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
