/// What is trained: floats with their gradient.
package final class TrainableParameter: Sendable {
  /// The name, as it is saved.
  package let name: String
  /// The values.
  package let values: Rows
  /// The gradient, which backward passes add to.
  package let gradient: Rows

  /// A parameter of the given values, its gradient zeros.
  package init(_ name: String, _ values: Rows) {
    self.name = name
    self.values = values
    gradient = Rows(values.count, values.columns)
  }

  /// How many floats it has.
  package var elementCount: Int { values.count * values.columns }
}
