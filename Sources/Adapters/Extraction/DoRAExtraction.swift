import Files
import LinearAlgebra
import Tensors

/// The DoRA update of a rank that is nearest to a change of a weight: c and d of
/// min ‖(W + D) − diag(c)·(W + d)‖.
///
/// The alternation of two least squares: for c the low-rank part is the
/// truncated decomposition of D − diag(c − 1)·W, divided by c by rows; for d each row's c is a
/// projection. Every half lowers the error or keeps it. Begun at c_o = ⟨T_o, W_o⟩ / ‖W_o‖² or at c of
/// an update that is known, or with LoRA's update where that is nearer: so never worse than LoRA of
/// the same rank.
/// In terms of D alone, so that f32 keeps seven digits of the change and not of the weight.
///
/// Memory: D and W in f32, twice D, and what a decomposition of D takes.
struct DoRAExtraction: Sendable {
  /// The low-rank part d.
  let pair: Pair
  /// c of each row.
  let factors: [Double]
  /// ‖(W + D) − diag(c)·(W + d)‖².
  let squaredError: Double

  private static let maximumRoundCount = 30
  /// The share of itself by which a round has to lower the error.
  private static let leastGain = 1e-4

  /// Decomposes a change.
  ///
  /// - Parameters:
  ///   - choice: of an energy the least rank that is found to keep it, looked for up to 32; beyond,
  ///     and of the others, what they choose of the singular values of a first approximation.
  ///   - factors: c of an update that is known, of another rank.
  /// - Throws: as `Truncation`.
  init(
    change: Matrix<Float>, of weight: Matrix<Float>, to choice: RankChoice,
    startingWith factors: [Double]? = nil, _ decomposition: Decomposition
  ) throws(PeftoolError) {
    let problem = Problem(change: change, weight: weight, known: factors)
    let first = try problem.first(choice, decomposition)
    guard case .energy = choice else {
      self = try problem.nearest(from: first, decomposition)
      return
    }
    // With c found less may be of low rank than with the first.
    var (low, rank) = (0, 1)
    while rank < min(first.pair.rank, Self.maximumSearchedRank) {
      var found = try problem.nearest(ofRank: rank, decomposition)
      guard problem.allows(found.squaredError, choice) else {
        (low, rank) = (rank, 2 * rank)
        continue
      }
      while rank - low > 1 {
        let middle = (low + rank) / 2
        let smaller = try problem.nearest(ofRank: middle, decomposition)
        if problem.allows(smaller.squaredError, choice) {
          (rank, found) = (middle, smaller)
        } else {
          low = middle
        }
      }
      self = found
      return
    }
    self = try problem.nearest(from: first, decomposition)
  }

  private static let maximumSearchedRank = 33

  fileprivate init(pair: Pair, factors: [Double], squaredError: Double) {
    self.pair = pair
    self.factors = factors
    self.squaredError = squaredError
  }

  /// Goes on until a round gains too little; the best that is found.
  fileprivate func improved(
    _ problem: Problem, _ decomposition: Decomposition
  ) throws(PeftoolError) -> DoRAExtraction {
    var best = self
    var pair = pair
    for _ in 0..<Self.maximumRoundCount {
      // Below the precision of f32 there is nothing to gain.
      guard best.squaredError > 1e-14 * problem.squaredChange else { break }
      let factors = problem.factors(pair)
      pair = try problem.lowRank(factors, near: pair, decomposition)
      let error = problem.squaredError(pair, factors)
      let gain = best.squaredError - error
      if gain > 0 { best = DoRAExtraction(pair: pair, factors: factors, squaredError: error) }
      if gain < Self.leastGain * error { break }
    }
    return best
  }

  /// The low-rank part, with what it keeps of a change's energy together with c.
  func truncation(of change: Matrix<Float>) -> Truncation {
    let whole = change.squaredNorm
    return Truncation(pair: pair, energy: max(0, whole - squaredError), of: whole)
  }

  /// DoRA's m for rounded factors: c·‖W + B·A‖ by rows.
  func magnitude(of weight: Matrix<Float>) -> [Double] {
    var sum = product(Matrix<Float>(pair.b), Matrix<Float>(pair.a))
    sum.add(weight, scaling: [Float](repeating: 1, count: weight.rows))
    return zip(factors, sum.squaredRowNorms).map { $0 * $1.squareRoot() }
  }
}

/// D and W with what is needed of them again and again.
private struct Problem {
  let change: Matrix<Float>
  let weight: Matrix<Float>
  /// ‖W_o‖².
  let squaredWeights: [Double]
  /// ⟨D_o, W_o⟩.
  let mixed: [Double]
  /// ‖D‖².
  let squaredChange: Double
  /// c of an update that is known.
  let known: [Double]?

  private static let blockRowCount = 256

  init(change: Matrix<Float>, weight: Matrix<Float>, known: [Double]?) {
    self.known = known
    self.change = change
    self.weight = weight
    squaredWeights = weight.squaredRowNorms
    mixed = change.rowProducts(with: weight)
    squaredChange = change.squaredNorm
  }

  /// ⟨T_o, W_o⟩ / ‖W_o‖², as 1 + ⟨D_o, W_o⟩ / ‖W_o‖².
  var projection: [Double] {
    zip(mixed, squaredWeights).map { $1 > 0 ? max(1 + $0 / $1, DoRASum.leastFactor) : 1 }
  }

  /// The update of given factors c.
  func update(
    _ factors: [Double], _ choice: RankChoice, _ decomposition: Decomposition
  ) throws(PeftoolError) -> DoRAExtraction {
    let pair = try lowRank(factors, choice, decomposition)
    return DoRAExtraction(
      pair: pair, factors: factors, squaredError: squaredError(pair, factors))
  }

  /// The nearest update of a rank that one of the starts leads to.
  func nearest(
    ofRank rank: Int, _ decomposition: Decomposition
  ) throws(PeftoolError) -> DoRAExtraction {
    try nearest(from: first(.fixed(rank), decomposition), decomposition)
  }

  /// The nearest update that a first approximation leads to, or that of LoRA of its rank.
  func nearest(
    from first: DoRAExtraction, _ decomposition: Decomposition
  ) throws(PeftoolError) -> DoRAExtraction {
    let ones = [Double](repeating: 1, count: change.rows)
    let lora = try update(ones, .fixed(first.pair.rank), decomposition)
    let start = lora.squaredError < first.squaredError ? lora : first
    return try start.improved(self, decomposition)
  }

  /// The first approximation: that of the projection, or of c that is known.
  func first(
    _ choice: RankChoice, _ decomposition: Decomposition
  ) throws(PeftoolError) -> DoRAExtraction {
    let first = try update(projection, choice, decomposition)
    guard let known else { return first }
    let other = try update(known, choice, decomposition)
    return (other.pair.rank, other.squaredError) < (first.pair.rank, first.squaredError)
      ? other : first
  }

  /// Whether an error is what a choice allows.
  func allows(_ squaredError: Double, _ choice: RankChoice) -> Bool {
    guard case .energy(let share) = choice else { return true }
    return squaredError <= (1 - share) * squaredChange
  }

  /// d for given factors c: L / c, L the nearest to D − diag(c − 1)·W of a rank.
  func lowRank(
    _ factors: [Double], _ choice: RankChoice, _ decomposition: Decomposition
  ) throws(PeftoolError) -> Pair {
    var rest = change
    rest.add(weight, scaling: factors.map { Float(1 - $0) })
    var choice = choice
    if case .energy(let share) = choice {
      // Of the change so much may be lost, and what c does is kept already.
      let squaredRest = rest.squaredNorm
      let lost = (1 - share) * squaredChange
      choice = lost >= squaredRest ? .fixed(1) : .energy(1 - lost / squaredRest)
    }
    return try Truncation(of: rest, to: choice, decomposition).pair
      .scaled(rows: factors.map { 1 / $0 })
  }

  /// d for given factors c, of the rank of a pair that is near to it.
  func lowRank(
    _ factors: [Double], near pair: Pair, _ decomposition: Decomposition
  ) throws(PeftoolError) -> Pair {
    guard !decomposition.isExact(for: change, rank: pair.rank) else {
      return try lowRank(factors, .fixed(pair.rank), decomposition)
    }
    let rest = ScaledSum(change: change, weight: weight, factors: factors.map { Float(1 - $0) })
    let found = try RandomizedSVD(
      of: rest, rank: pair.rank, .init(seed: decomposition.seed, maximumBlockCount: 3),
      startingWith: Matrix<Float>(pair.a).transposed()
    ).svd
    return Pair(found).scaled(rows: factors.map { 1 / $0 })
  }

  /// c for a given d: ⟨T_o, V_o⟩ / ‖V_o‖² with V = W + d, as 1 + ⟨D_o − d_o, V_o⟩ / ‖V_o‖².
  func factors(_ pair: Pair) -> [Double] {
    let a = Matrix<Float>(pair.a)
    let changes = product(change, a, transposing: .right)
    let weights = product(weight, a, transposing: .right)
    let gram = product(pair.a, pair.a, transposing: .right)
    let squares = product(pair.b, gram)
    let rank = pair.rank
    return (0..<change.rows).map { row in
      var (dChange, dWeight, dd) = (0.0, 0.0, 0.0)
      for place in row * rank..<(row + 1) * rank {
        dChange += pair.b.elements[place] * Double(changes.elements[place])
        dWeight += pair.b.elements[place] * Double(weights.elements[place])
        dd += pair.b.elements[place] * squares.elements[place]
      }
      let squaredNorm = squaredWeights[row] + 2 * dWeight + dd
      guard squaredNorm > 0 else { return 1 }
      return max(1 + (mixed[row] + dChange - dWeight - dd) / squaredNorm, DoRASum.leastFactor)
    }
  }

  /// ‖D − diag(c − 1)·W − diag(c)·B·A‖², from the residual itself: a difference of squares would say
  /// nothing below 1e-3 of ‖D‖.
  func squaredError(_ pair: Pair, _ factors: [Double]) -> Double {
    let b = Matrix<Float>(pair.b.scaled(rows: factors))
    let a = Matrix<Float>(pair.a)
    var sum = 0.0
    for start in stride(from: 0, to: change.rows, by: Self.blockRowCount) {
      let rows = start..<min(start + Self.blockRowCount, change.rows)
      var block = product(b.rows(rows), a)
      block.add(weight.rows(rows), scaling: factors[rows].map { Float($0 - 1) })
      sum += Float.sumOfSquaredChange(
        change.rows(rows).elements.span, from: block.elements.span, count: block.elements.count)
    }
    return sum
  }
}

/// D + diag(f)·W, which is never formed.
private struct ScaledSum: LinearOperator {
  let change: Matrix<Float>
  let weight: Matrix<Float>
  let factors: [Float]

  var rows: Int { change.rows }
  var columns: Int { change.columns }

  func times(_ matrix: Matrix<Float>) -> Matrix<Float> {
    var result = product(change, matrix)
    result.add(product(weight, matrix), scaling: factors)
    return result
  }

  func transposedTimes(_ matrix: Matrix<Float>) -> Matrix<Float> {
    var scaled = Matrix<Float>(rows: matrix.rows, columns: matrix.columns)
    scaled.add(matrix, scaling: factors)
    var result = product(change, matrix, transposing: .left)
    result.add(
      product(weight, scaled, transposing: .left),
      scaling: [Float](repeating: 1, count: result.rows))
    return result
  }
}
