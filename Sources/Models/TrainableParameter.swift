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

  /// Whether its gradient's memory is that of others, too: whoever adds to it takes it away at once.
  package let sharesGradient: Bool

  /// A parameter of the given values, its gradient zeros.
  package init(_ name: String, _ values: Rows, isDecayed: Bool = true, isFrozen: Bool = false) {
    self.name = name
    self.values = values
    self.isDecayed = isDecayed
    self.isFrozen = isFrozen
    sharesGradient = false
    gradient = Rows(isFrozen ? 0 : values.count, values.columns)
  }

  /// A parameter whose gradient is in memory that others use in turn.
  init(_ name: String, _ values: Rows, sharing gradient: Rows) {
    precondition(
      gradient.count == values.count && gradient.columns == values.columns, "one shape")
    self.name = name
    self.values = values
    self.gradient = gradient
    isDecayed = true
    isFrozen = false
    sharesGradient = true
  }

  /// How many floats it has.
  package var elementCount: Int { values.count * values.columns }
}
