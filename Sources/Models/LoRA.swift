import Tensors

/// The adapter of a linear layer: LoRA, or with a magnitude DoRA.
///
/// W' = W + s·B·A, or diag(m / ‖W + s·B·A‖) · (W + s·B·A) with the norm of each row, which is a
/// constant in the backward pass (PEFT `lora/dora.py`; the paper's section 4.3).
package final class LoRA: Sendable {
  /// A, (rank, inputs).
  package let a: TrainableParameter
  /// B transposed, (rank, outputs): so that both factors are read alike.
  package let b: TrainableParameter
  /// DoRA's m, (1, outputs).
  package let magnitude: TrainableParameter?
  /// The factor s.
  package let scaling: Float

  /// s·A, in step with `a` since the last `refresh`.
  let scaledA: Rows
  /// DoRA's norms of the rows, (1, outputs), which a forward pass finds.
  let norms: Rows
  /// m / norm, (1, outputs).
  let gains: Rows
  private let memory: (a: Rows, b: Rows)

  /// An adapter of the given factors.
  package init(
    a: TrainableParameter, b: TrainableParameter, magnitude: TrainableParameter?, scaling: Float
  ) {
    precondition(a.values.count == b.values.count, "one rank")
    self.a = a
    self.b = b
    self.magnitude = magnitude
    self.scaling = scaling
    let rank = a.values.count
    scaledA = Rows(rank, a.values.columns)
    norms = Rows(1, magnitude == nil ? 0 : b.values.columns)
    gains = Rows(1, magnitude == nil ? 0 : b.values.columns)
    memory = (
      Rows(1, Panels.floatCount(depth: a.values.columns, columns: rank)),
      Rows(1, Panels.floatCount(depth: b.values.columns, columns: rank))
    )
    refresh()
  }

  /// The rank.
  package var rank: Int { a.values.count }
  /// What is trained.
  package var parameters: [TrainableParameter] { [a, b] + (magnitude.map { [$0] } ?? []) }

  /// Brings what follows from the factors up to date: called after each change of them.
  package func refresh() {
    scaledA.copy(from: a.values)
    for row in 0..<rank {
      scaledA.withSpan(row: row) { Float.scale(&$0, at: 0, by: scaling, count: $0.count) }
    }
  }

  /// s·Aᵀ in panels: x · it is u = s·A·x.
  func panelsOfA() -> Panels { Panels(transposing: scaledA, in: memory.a) }
  /// B in panels: dy · it is B transposed times dy.
  func panelsOfB() -> Panels { Panels(transposing: b.values, in: memory.b) }

  /// tile += s·B·A, some rows and columns of it.
  func add(rows: Range<Int>, columns: Range<Int>, to tile: Rows) {
    tile.multiply(
      transposed: b.values.columns(rows), scaledA.columns(columns), adding: true)
  }
}
