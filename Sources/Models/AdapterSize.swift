/// The sizes of a linear layer's adapter, of one that is there or of one that is planned.
package struct AdapterSize: Equatable, Sendable {
  /// The inputs and the outputs of the layer.
  package let inputs, outputs: Int
  /// The rank that is trained.
  package let rank: Int
  /// The rank with frozen rows.
  package var fullRank: Int
  /// The inputs of which A has one column: more than one of QA-LoRA.
  package var groupSize = 1
  /// Whether nothing of it is trained.
  package var isFrozen = false
  /// Whether A is trained.
  package var trainsA = true
  /// Whether it has AdaLoRA's singular values.
  package var hasSingularValues = false
  /// Whether it has DoRA's magnitude.
  package var hasMagnitude = false
  /// Whether it has a bias of its own.
  package var hasBias = false
  /// Whether training passes leave inputs out.
  package var dropsInputs = false

  /// A LoRA adapter.
  package init(inputs: Int, outputs: Int, rank: Int) {
    self.inputs = inputs
    self.outputs = outputs
    self.rank = rank
    fullRank = rank
  }

  /// The numbers of each parameter that is trained: those of A, B, E, the magnitude and the bias.
  package var parameterCounts: [Int] {
    if isFrozen { return [] }
    let counts = [
      trainsA ? rank * inputs / groupSize : 0, rank * outputs, hasSingularValues ? rank : 0,
      hasMagnitude ? outputs : 0, hasBias ? outputs : 0,
    ]
    return counts.filter { $0 > 0 }
  }

  /// The bytes of all that it has in memory but its gradients: what is trained, what is frozen, and
  /// the factors laid out for products.
  package var valueByteCount: Int {
    let factors = fullRank * (inputs / groupSize + outputs) + fullRank * inputs
    let panels =
      isFrozen
      ? 0
      : Panels.floatCount(depth: inputs, columns: rank)
        + Panels.floatCount(depth: outputs, columns: rank)
    let singularValues = hasSingularValues ? rank : 0
    // A as it is multiplied, and of groups its gradient.
    let isApplied = hasSingularValues || groupSize > 1
    let applied =
      (isApplied ? rank * inputs : 0) + (groupSize > 1 && trainsA && !isFrozen ? rank * inputs : 0)
    let vectors = (hasMagnitude ? 3 : 0) * outputs + (hasBias ? 2 : 0) * outputs
    return 4 * (factors + panels + singularValues + applied + vectors)
  }

  /// The bytes of its gradients.
  package var gradientByteCount: Int { 4 * parameterCounts.reduce(0, +) }
}

extension LoRA {
  /// Its sizes.
  package var size: AdapterSize {
    var size = AdapterSize(
      inputs: a.values.columns * groupSize, outputs: b.values.columns, rank: rank)
    size.fullRank = fullRank
    size.groupSize = groupSize
    size.isFrozen = parameters.isEmpty
    size.trainsA = !a.isFrozen
    size.hasSingularValues = e != nil
    size.hasMagnitude = magnitude != nil
    size.hasBias = bias != nil
    size.dropsInputs = dropout > 0
    return size
  }
}
