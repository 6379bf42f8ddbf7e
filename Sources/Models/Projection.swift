/// A linear layer y = x·Wᵀ + bias: a frozen weight, with or without an adapter.
package final class Projection: Sendable {
  /// The module's path, such as `model.layers.0.self_attn.q_proj`.
  package let name: String
  /// The weight, (outputs, inputs).
  package let weight: FrozenWeight
  /// The bias, (1, outputs).
  package let bias: Rows?
  /// The adapter.
  package let adapter: LoRA?

  /// A layer of the given parts.
  package init(_ name: String, _ weight: FrozenWeight, bias: Rows? = nil, adapter: LoRA? = nil) {
    self.name = name
    self.weight = weight
    self.bias = bias
    self.adapter = adapter
  }

  /// The width of x.
  package var inputs: Int { weight.inputs }
  /// The width of y.
  package var outputs: Int { weight.outputs }

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
}
