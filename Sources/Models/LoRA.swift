import Tensors

/// The adapter of a linear layer: LoRA, with a magnitude DoRA, or with singular values AdaLoRA.
///
/// W' = W + s·B·A, or diag(m / ‖W + s·B·A‖) · (W + s·B·A) with the norm of each row, which is a
/// constant in the backward pass (PEFT `lora/dora.py`; the paper's section 4.3), or
/// W + s·B·diag(E)·A (PEFT `adalora/layer.py`; Zhang et al. 2023, section 3.1). The factors may
/// have frozen rows after the trained ones: −B₀ and A₀ of a start that takes its product from the
/// weight (PiSSA, OLoRA), so that W' is W as training begins. A column of A may be shared by a group
/// of inputs, whose sum it then sees: QA-LoRA's mean, with 1/group in s (Xu et al. 2023, section 3.3).
package final class LoRA: Sendable {
  /// A, (rank, inputs / group size); it may be frozen.
  package let a: TrainableParameter
  /// B transposed, (rank, outputs): so that both factors are read alike.
  package let b: TrainableParameter
  /// AdaLoRA's E, (rank, 1).
  package let e: TrainableParameter?
  /// DoRA's m, (1, outputs).
  package let magnitude: TrainableParameter?
  /// What B adds besides, before the scaling, (1, outputs): PEFT's `lora_bias`.
  package let bias: TrainableParameter?
  /// The inputs that share a column of A: 1 but for QA-LoRA.
  package let groupSize: Int
  /// The factor s.
  package let scaling: Float
  /// The share of the inputs of A that a training pass leaves out.
  package let dropout: Double

  /// A and B transposed with the frozen rows.
  package let all: (a: Rows, b: Rows)
  /// A as it is multiplied by B, (rank, inputs): E∘A of AdaLoRA, and A with each column once for
  /// each input of its group, in step since the last `refresh`.
  let appliedA: Rows
  /// The gradient of that, which backward passes add to; for groups of one in A's place.
  let appliedGradient: Rows
  /// s times that with the frozen rows, likewise.
  let scaledA: Rows
  /// s·bias, (1, outputs), likewise.
  let scaledBias: Rows?
  /// DoRA's norms of the rows, (1, outputs), which a forward pass finds.
  let norms: Rows
  /// m / norm, (1, outputs).
  let gains: Rows
  private let memory: (a: Rows, b: Rows)

  /// An adapter of the given factors.
  ///
  /// - Parameter all: the factors with frozen rows, of which `a` and `b` are the first.
  package init(
    a: TrainableParameter, b: TrainableParameter, e: TrainableParameter? = nil,
    magnitude: TrainableParameter? = nil, bias: TrainableParameter? = nil, groupSize: Int = 1,
    scaling: Float, dropout: Double = 0, all: (a: Rows, b: Rows)? = nil
  ) {
    precondition(a.values.count == b.values.count, "one rank")
    precondition(magnitude == nil || bias == nil, "DoRA has no bias of its own")
    precondition(e == nil || (magnitude == nil && bias == nil && all == nil), "E is of plain LoRA")
    precondition(
      groupSize == 1 || (groupSize > 1 && e == nil && magnitude == nil && all == nil),
      "groups are of plain LoRA")
    precondition((e?.values.count ?? a.values.count) == a.values.count, "one rank")
    precondition(dropout >= 0 && dropout < 1, "a share that leaves something")
    self.a = a
    self.b = b
    self.e = e
    self.magnitude = magnitude
    self.bias = bias
    self.groupSize = groupSize
    self.scaling = scaling
    self.dropout = dropout
    self.all = all ?? (a.values, b.values)
    precondition(self.all.a.count == self.all.b.count, "one rank of all")
    precondition(
      self.all.a.storage === a.values.storage && self.all.b.storage === b.values.storage,
      "the trained rows are the first of all")
    let rank = a.values.count
    let inputs = a.values.columns * groupSize
    appliedA = e == nil && groupSize == 1 ? a.values : Rows(rank, inputs)
    appliedGradient = groupSize == 1 ? a.gradient : Rows(a.isFrozen ? 0 : rank, inputs)
    scaledA = Rows(self.all.a.count, inputs)
    scaledBias = bias.map { Rows(1, $0.values.columns) }
    norms = Rows(1, magnitude == nil ? 0 : b.values.columns)
    gains = Rows(1, magnitude == nil ? 0 : b.values.columns)
    // Backward passes alone lay the factors out.
    let isLaidOut = !a.isFrozen || !b.isFrozen
    memory = (
      Rows(1, isLaidOut ? Panels.floatCount(depth: inputs, columns: rank) : 0),
      Rows(1, isLaidOut ? Panels.floatCount(depth: b.values.columns, columns: rank) : 0)
    )
    refresh()
  }

  /// The rank of what is trained.
  package var rank: Int { a.values.count }
  /// The ranks that are not 0: of AdaLoRA by E, otherwise by the rows of A and B.
  package var keptRanks: [Int] {
    func isZero(_ rows: Rows, _ row: Int) -> Bool {
      (0..<rows.columns).allSatisfy { rows[row, $0] == 0 }
    }
    return (0..<rank).filter { rank in
      e.map { $0.values[rank, 0] != 0 } ?? !(isZero(a.values, rank) && isZero(b.values, rank))
    }
  }
  /// The rank with the frozen rows.
  var fullRank: Int { all.a.count }
  /// The bytes of all that it has in memory.
  package var byteCount: Int { size.valueByteCount + size.gradientByteCount }
  /// What is trained.
  package var parameters: [TrainableParameter] {
    [a, b, e, magnitude, bias].compactMap(\.self).filter { !$0.isFrozen }
  }

  /// Brings what follows from the factors up to date: called after each change of them.
  package func refresh() {
    if let e {
      appliedA.copy(from: a.values)
      for row in 0..<rank { appliedA.rows(row..<row + 1).scale(by: e.values[row, 0]) }
    }
    if groupSize > 1 { appliedA.copy(from: a.values, repeating: groupSize) }
    scaledA.copy(from: e == nil && groupSize == 1 ? all.a : appliedA)
    scaledA.scale(by: scaling)
    guard let bias, let scaledBias else { return }
    scaledBias.copy(from: bias.values)
    scaledBias.scale(by: scaling)
  }

  /// Turns the gradient of what is applied into those of what is trained, A and E: called once a step,
  /// before anything looks at them.
  package func completeGradients() {
    if groupSize > 1, !a.isFrozen {
      a.gradient.addSums(of: appliedGradient, groupSize: groupSize)
      appliedGradient.clear()
    }
    guard let e else { return }
    for row in 0..<rank {
      let gradient = a.gradient.rows(row..<row + 1)
      e.gradient[row, 0] = Float(gradient.sumOfProducts(a.values.rows(row..<row + 1)))
      gradient.scale(by: e.values[row, 0])
    }
  }

  /// s·Aᵀ in panels: x · it is u = s·A·x.
  func panelsOfA() -> Panels { Panels(transposing: scaledA.rows(0..<rank), in: memory.a) }
  /// B in panels, each output's row times its factor if there are any: dy · it is Bᵀ·dy.
  func panelsOfB(_ factors: Rows? = nil) -> Panels {
    guard let factors else { return Panels(transposing: b.values, in: memory.b) }
    let scaled = Rows(rank, b.values.columns)
    scaled.copy(from: b.values)
    scaled.scaleColumns(by: factors, plus: nil)
    return Panels(transposing: scaled, in: memory.b)
  }

  /// tile += s·B·A, some rows and columns of it, with what is frozen.
  func add(rows: Range<Int>, columns: Range<Int>, to tile: Rows) {
    add(0..<fullRank, rows: rows, columns: columns, to: tile)
  }

  /// The same of what is frozen alone.
  func addFrozen(rows: Range<Int>, columns: Range<Int>, to tile: Rows) {
    guard rank < fullRank else { return }
    add(rank..<fullRank, rows: rows, columns: columns, to: tile)
  }

  /// The same of some ranks of the two.
  func add(
    _ ranks: Range<Int>, rows: Range<Int>, columns: Range<Int>, to tile: Rows
  ) {
    tile.multiply(
      transposed: all.b.rows(ranks).columns(rows), scaledA.rows(ranks).columns(columns),
      adding: true)
  }
}
