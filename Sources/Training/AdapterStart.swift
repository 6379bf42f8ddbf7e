import Adapters
import Files
import LinearAlgebra
import Models

/// How an adapter's factors begin: PEFT's `init_lora_weights`.
///
/// Source: PEFT `lora/layer.py` (`reset_lora_parameters`, `pissa_init`, `olora_init`,
/// `loftq_init`). Where a start changes the weight there, nothing is changed here: frozen rows of the
/// factors take its product off again, exactly, where PEFT rounds the changed weight.
package enum AdapterStart: String, CaseIterable, Sendable {
  /// A from U(−1/√in, 1/√in), PEFT's default (Kaiming's with a = √5), and B = 0.
  case uniform = "default"
  /// A from N(0, 1/r²), and B = 0.
  case gaussian
  /// The largest singular values and vectors of W, as B = U·√(σ/s) and A = √(σ/s)·Vᵀ, which are
  /// taken from it (Meng, Wang, Zhang 2024).
  case pissa
  /// B = Q and A = R of the first columns and rows of W = Q·R, of which s·B·A is taken from it
  /// (Büyükakyüz 2024).
  case olora
  /// The largest singular values and vectors of what quantization has lost, W − Q, by which s·B·A
  /// comes nearest to it (Li et al. 2023, one iteration; PEFT leaves s out of it).
  case loftq

  /// Both factors, with what is frozen of them.
  struct Pair {
    /// A and the frozen rows, (ranks, inputs).
    let a: Rows
    /// B transposed and the frozen rows, (ranks, outputs).
    let b: Rows
  }

  /// Whether the product of the start is taken from the weight.
  package var takesFromWeight: Bool { self == .pissa || self == .olora }

  /// The factors of a layer.
  ///
  /// - Throws: `different` where the weight has not that rank, `unsupported` for `loftq` of a weight
  ///   that is not quantized while it is loaded; as `SVD`.
  func pair(
    rank: Int, scaling: Double, module: String, _ weight: FrozenWeight, original: FrozenWeight,
    seed: UInt64
  ) throws(PeftoolError) -> Pair {
    let count = takesFromWeight ? 2 * rank : rank
    let pair = Pair(a: Rows(count, weight.inputs), b: Rows(count, weight.outputs))
    switch self {
    case .uniform, .gaussian: draw(pair.a, module: module, seed: seed)
    case .pissa:
      try pair.fill(weight.matrix, rank: rank, scaling: scaling, rawValue)
    case .olora:
      try Self.check(rank, weight, rawValue)
      pair.fillTriangular(weight.matrix, rank: rank)
    case .loftq:
      guard !original.isQuantized else {
        throw PeftoolError(
          .unsupported,
          "is quantized already, and --init loftq makes up for what it loses when it is: it wants a "
            + "base of 16 or 32 bits")
      }
      guard weight.isQuantized else {
        throw PeftoolError(
          .unsupported,
          "is not quantized here, which --init loftq makes up for: leave it out of "
            + "--target-modules")
      }
      var lost = original.matrix
      lost.subtract(weight.matrix)
      try pair.fill(lost, rank: rank, scaling: scaling, rawValue)
    }
    if takesFromWeight { pair.freeze(rank) }
    return pair
  }

  /// Draws A, whatever its columns stand for.
  func draw(_ a: Rows, module: String, seed: UInt64) {
    // Each module draws from a stream of its own, whichever others there are.
    let random = RandomNumbers(seed: seed, stream: RandomNumbers.stream(named: module))
    let bound = 1 / Double(a.columns).squareRoot()
    for row in 0..<a.count {
      for column in 0..<a.columns {
        let place = row * a.columns + column
        a[row, column] =
          self == .gaussian
          ? Float(random.normal(place) / Double(a.count))
          : Float((random.uniform(place) * 2 - 1) * bound)
      }
    }
  }

  fileprivate static func check(
    _ rank: Int, _ matrix: (outputs: Int, inputs: Int), _ name: String
  ) throws(PeftoolError) {
    guard rank > min(matrix.outputs, matrix.inputs) else { return }
    throw PeftoolError(
      .different,
      "has \(min(matrix.outputs, matrix.inputs)) ranks, of which --init \(name) takes \(rank)")
  }

  private static func check(
    _ rank: Int, _ weight: FrozenWeight, _ name: String
  ) throws(PeftoolError) {
    try check(rank, (weight.outputs, weight.inputs), name)
  }
}

extension AdapterStart.Pair {
  /// The largest singular values and vectors, half of each value in each factor.
  fileprivate func fill(
    _ matrix: Matrix<Float>, rank: Int, scaling: Double, _ name: String
  ) throws(PeftoolError) {
    try AdapterStart.check(rank, (matrix.rows, matrix.columns), name)
    let svd = try Decomposition().largest(rank, of: matrix)
    for (place, value) in svd.singularValues.enumerated() {
      let root = Float((Double(value) / scaling).squareRoot())
      for column in 0..<a.columns { a[place, column] = root * svd.vt[place, column] }
      for row in 0..<b.columns { b[place, row] = root * svd.u[row, place] }
    }
  }

  /// Q and R.
  fileprivate func fillTriangular(_ matrix: Matrix<Float>, rank: Int) {
    // The first columns of Q are those of the first columns alone.
    let q = QR(matrix.firstColumns(rank)).q
    let r = product(q, matrix, transposing: .left)
    for place in 0..<rank {
      for column in 0..<a.columns { a[place, column] = r[place, column] }
      for row in 0..<b.columns { b[place, row] = q[row, place] }
    }
  }

  /// The lengths of the rows of W + s·B·A: sums of squares in f64, their roots rounded to f32.
  func rowNorms(addedTo weight: FrozenWeight, _ scaling: Double) -> [Float] {
    let update = product(
      Matrix(rows: b.count, columns: b.columns, elements: b.values),
      Matrix(rows: a.count, columns: a.columns, elements: a.values), transposing: .left)
    let values = weight.values
    return (0..<weight.outputs).map { row in
      var squares = 0.0
      for place in row * weight.inputs..<(row + 1) * weight.inputs {
        let value = Double(values[place]) + scaling * Double(update.elements[place])
        squares += value * value
      }
      return Float(squares.squareRoot())
    }
  }

  /// Puts A₀ and −B₀ behind what is trained.
  fileprivate func freeze(_ rank: Int) {
    a.rows(rank..<2 * rank).copy(from: a.rows(0..<rank))
    for place in 0..<rank {
      for row in 0..<b.columns { b[rank + place, row] = -b[place, row] }
    }
  }
}

extension FrozenWeight {
  /// All of it, in f32.
  fileprivate var matrix: Matrix<Float> {
    Matrix(rows: outputs, columns: inputs, elements: values)
  }
}
