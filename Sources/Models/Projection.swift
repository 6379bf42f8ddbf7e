/// A linear layer y = x·Wᵀ + bias: a frozen weight, with or without an adapter, or a trained one.
package final class Projection: Sendable {
  /// The module's path, such as `model.layers.0.self_attn.q_proj`.
  package let name: String
  /// The weight, (outputs, inputs).
  package let weight: ModuleWeight
  /// The bias, (1, outputs).
  package let bias: Rows?
  /// The bias where it is trained, with the weight.
  let trainedBias: TrainableParameter?
  /// The adapter.
  package let adapter: LoRA?

  /// A layer that is frozen but for its adapter.
  package init(_ name: String, _ weight: FrozenWeight, bias: Rows? = nil, adapter: LoRA? = nil) {
    self.name = name
    self.weight = .frozen(weight)
    self.bias = bias
    trainedBias = nil
    self.adapter = adapter
  }

  /// A layer whose weight is trained, all or in part, and its bias where that is.
  ///
  /// - Parameter bias: that of a frozen one.
  init(
    _ name: String, _ weight: ModuleWeight, bias: Rows? = nil,
    trainedBias: TrainableParameter? = nil
  ) {
    self.name = name
    self.weight = weight
    self.bias = trainedBias?.values ?? bias
    self.trainedBias = trainedBias
    adapter = nil
  }

  /// The width of x.
  package var inputs: Int { weight.inputs }
  /// The width of y.
  package var outputs: Int { weight.outputs }
  /// Whether anything of it is trained.
  var isTrained: Bool { adapter != nil || weight.isTrained }

  /// Whether it has an adapter whose A is trained.
  var trainsA: Bool { adapter.map { !$0.a.isFrozen } ?? false }

  /// Some rows and columns of the weight that an adapter begins with: W, less what its start took.
  func fillBase(rows: Range<Int>, columns: Range<Int>, into tile: Rows) {
    weight.widen(rows: rows, columns: columns, into: tile)
    adapter?.addFrozen(rows: rows, columns: columns, to: tile)
  }

  /// Some rows and columns of W + s·B·A.
  func fill(rows: Range<Int>, columns: Range<Int>, into tile: Rows) {
    weight.widen(rows: rows, columns: columns, into: tile)
    adapter?.add(rows: rows, columns: columns, to: tile)
  }

  /// The same to be read: as it lies where the weight is trained, for then there is no adapter, or
  /// else in a scratch.
  func tile(rows: Range<Int>, columns: Range<Int>, in scratch: Rows) -> Rows {
    if let own = weight.whole { return own.values.rows(rows).columns(columns) }
    let tile = scratch.reshaped(rows.count, columns.count)
    fill(rows: rows, columns: columns, into: tile)
    return tile
  }
}
