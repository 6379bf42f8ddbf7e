/// What is trained, or a factor of it that stays as it is: floats with their gradient.
package final class TrainableParameter: Sendable {
  /// The name, as it is saved.
  package let name: String
  /// The values.
  package let values: Rows
  /// The gradient, which backward passes add to; no rows of what is frozen.
  package let gradient: Rows

  /// Whether weight decay is for it: not for norms and biases, as in transformers' `Trainer`.
  package let isDecayed: Bool
  /// Whether it stays as it is: the A of LoRA-FA.
  package let isFrozen: Bool

  /// A parameter of the given values, its gradient zeros.
  package init(_ name: String, _ values: Rows, isDecayed: Bool = true, isFrozen: Bool = false) {
    self.name = name
    self.values = values
    self.isDecayed = isDecayed
    self.isFrozen = isFrozen
    gradient = Rows(isFrozen ? 0 : values.count, values.columns)
  }

  /// How many floats it has.
  package var elementCount: Int { values.count * values.columns }
}
