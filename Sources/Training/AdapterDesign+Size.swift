import Adapters
package import Files
package import Models

extension AdapterDesign {
  /// The sizes of the adapter that a layer gets; nil where it gets none: as `adapter(of:_:original:)`.
  ///
  /// - Parameter groupSize: the inputs of a group of the base's codes, for QA-LoRA.
  /// - Throws: as that, but for what lies in the weight's numbers.
  package func size(
    of layer: LlamaConfiguration.Linear, groupSize: Int? = nil
  ) throws(PeftoolError) -> AdapterSize? {
    guard try targets.contains(layer.module) else { return nil }
    var rank = try rankPatterns.firstValue(for: layer.module) ?? rank
    if case .adaLoRA(let settings) = method {
      rank = settings.initialRank
    }
    if let option = rankOption { try Self.check(rank, option, layer) }
    var size = AdapterSize(inputs: layer.inputs, outputs: layer.outputs, rank: rank)
    size.dropsInputs = dropout > 0
    if case .adaLoRA = method {
      size.hasSingularValues = true
      return size
    }
    if method == .qaLoRA, let groupSize { size.groupSize = groupSize }
    if start.takesFromWeight { size.fullRank = 2 * rank }
    size.trainsA = method != .loraFA
    size.hasMagnitude = usesDoRA
    size.hasBias = hasBias
    return size
  }
}
