package import Models

/// What a step costs: operations, at the rate of products of matrices, and bytes that go through
/// memory.
///
/// A product of (m, k) and (k, n) is 2·m·k·n operations. The weights' share of a token is 2 operations
/// a number in the forward pass, as many for the gradient of the input, and for that of the weight where
/// it is trained; attention's, causal, 2·T·heads·D a layer forward and 5·T·heads·D backward, where
/// scores are computed again; an adapter's 6·r·(inputs + outputs), less 2·r·inputs where A is frozen.
package struct StepCost: Equatable, Sendable {
  /// The operations of a token.
  package let operationsPerToken: Double
  /// The operations of each batch, whatever its tokens: DoRA's norms.
  package let operationsPerBatch: Double
  /// The operations of each step: GaLore's projections, AdaLoRA's orthogonality.
  package let operationsPerStep: Double
  /// The operations of finding GaLore's subspaces, and the steps from one to the next.
  package let subspaceOperations: Double
  /// Likewise.
  package let gap: Int
  /// The bytes that widening weights, each batch, and the optimizer, each step, read and write.
  package let bytesPerBatch, bytesPerStep: Double

  /// How fast a machine is.
  package struct Rates: Equatable, Sendable {
    /// Operations a second of products, on all threads.
    package let operations: Double
    /// Bytes a second from and to memory.
    package let bytes: Double

    package init(operations: Double, bytes: Double) {
      self.operations = operations
      self.bytes = bytes
    }
  }

  /// The share of pairs of tokens that groups of a quarter of the text see.
  ///
  /// T²/8 in half of the heads and 7·T²/64 in the other, of T²/2 (Chen et al. 2024, section 3.2).
  private static let shareOfGroups = 15.0 / 64

  /// - Parameters:
  ///   - length: the tokens of a text.
  ///   - isGrouped: whether attention is LongLoRA's, in groups of a quarter of it.
  package init(
    _ model: ModelSize, _ settings: MethodSettings, isEightBit: Bool, length: Int,
    keeping: LossPass.Keeping, isGrouped: Bool
  ) {
    let configuration = model.configuration
    let layers = Double(configuration.layerElementCount)
    let table = Double(configuration.tableElementCount)
    let forwards = keeping == .inputs ? 2.0 : 1.0
    let own = model.trainedWeights
    let trainedOfLayers = own.filter(\.isOfLayer).reduce(0.0) { $0 + Double($1.elementCount) }
    let trainsHead = own.contains(where: \.isHead)
    let heads = Double(configuration.headCount * configuration.headSize)
    let attention =
      Double(configuration.layerCount) * Double(length) * heads
      * (2 * forwards + 5) * (isGrouped ? Self.shareOfGroups : 1)
    let adapters = model.adapters.reduce(0.0) { sum, size in
      let (a, b) = (Double(size.rank * size.inputs), Double(size.rank * size.outputs))
      return sum + 2 * (forwards - 1) * (a + b) + (size.trainsA ? 6 : 4) * a + 6 * b
    }
    operationsPerToken =
      (2 * forwards + 2) * layers + 2 * trainedOfLayers + (trainsHead ? 6 : 4) * table + attention
      + adapters
    operationsPerBatch =
      forwards
      * model.adapters.reduce(0.0) { sum, size in
        let all = Double(size.inputs) * Double(size.outputs)
        return sum + (size.hasMagnitude ? (2 * Double(size.rank) + 3) * all : 0)
      }
    let orthogonality = model.adapters.reduce(0.0) { sum, size in
      let sides = Double(size.inputs + size.outputs)
      return sum + (size.hasSingularValues ? 4 * Double(size.rank * size.rank) * sides : 0)
    }
    operationsPerStep = orthogonality + settings.projectionOperations(model)
    subspaceOperations = settings.subspaceOperations(model)
    if case .galore(let galore) = settings { gap = galore.gap } else { gap = 1 }
    bytesPerBatch = Double(model.frozenByteCount) * (forwards + 1)
    // A number, its gradient and its moments are read, and all but the gradient written.
    let moments = isEightBit ? 2.03 : 8.0
    bytesPerStep = (4 + 4 + 4 + 2 * moments) * settings.movedNumbers(model)
  }

  /// The seconds of what so many steps have beside their passes.
  package func secondsBesidePasses(steps: Int, _ rates: Rates) -> Double {
    let subspaces = Double((steps + gap - 1) / gap)
    return Double(steps) * (operationsPerStep / rates.operations + bytesPerStep / rates.bytes)
      + subspaces * subspaceOperations / rates.operations
  }

  /// The seconds of so many steps of one batch each, of so many tokens.
  package func seconds(steps: Int, tokens: Int, _ rates: Rates) -> Double {
    let pass =
      (operationsPerToken * Double(tokens) + operationsPerBatch) / rates.operations
      + bytesPerBatch / rates.bytes
    return Double(steps) * pass + secondsBesidePasses(steps: steps, rates)
  }
}
