package import Adapters
import Checkpoints
import Tensors

extension Adapter {
  /// The bytes that it takes in memory beside a model that uses it as it is: its pairs as `AdapterSize`
  /// has them, and all else in f32.
  ///
  /// Shapes are looked at alone, and not yet held to the model's.
  package var appliedByteCount: Int {
    modules.reduce(0) { sum, module in
      let size = AdapterSize(applying: module, groupSize: configuration.pooledGroupSize ?? 1)
      let others = module.parts.reduce(0) { sum, part in
        size != nil && AdapterSize.parts.contains(part.key) ? sum : sum + part.value.elementCount
      }
      return sum + (size?.valueByteCount ?? 0) + 4 * others
    }
  }
}

extension AdapterSize {
  /// What an adapter of a linear layer is made of.
  fileprivate static let parts: Set<AdapterKey.Part> = [
    .loraA, .loraB, .loraBias, .loraE, .magnitude,
  ]

  /// The pair of a module that is not trained; nil where it has none.
  fileprivate init?(applying module: Adapter.Module, groupSize: Int) {
    guard let a = module.parts[.loraA]?.shape, let b = module.parts[.loraB]?.shape,
      a.count == 2, b.count == 2
    else { return nil }
    // Sizes that no memory holds are of no layer.
    let inputs = a[1].multipliedReportingOverflow(by: groupSize)
    guard !inputs.overflow, a[0] < 1 << 28, inputs.partialValue < 1 << 28, b[0] < 1 << 28 else {
      return nil
    }
    self.init(inputs: inputs.partialValue, outputs: b[0], rank: a[0])
    self.groupSize = groupSize
    isFrozen = true
    hasMagnitude = module.parts[.magnitude] != nil
    hasBias = module.parts[.loraBias] != nil
  }
}
