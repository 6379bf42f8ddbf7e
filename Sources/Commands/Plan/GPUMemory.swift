import Models
import Training

/// The memory that a method takes on a GPU, by the byte counts that were published, and not measured
/// here: what PEFT, bitsandbytes and galore_torch keep, with weights and activations in bf16.
///
/// - Weights: those that are frozen 2 bytes, or the bits of their codes; adapters in f32, as PEFT casts
///   them.
/// - Trained weights of the model: 2 bytes, a gradient of 2, moments of 2 each, as torch keeps AdamW's
///   in the weights' type (GaLore, section 1: 14 GB of weights and 42 GB of moments and gradients for
///   LLaMA-7B), or 1 each in 8 bits and 8 bytes for 256. Adapters: 4, 4, and 4 each or 1.
/// - GaLore: one gradient at a time, that of the largest matrix, as its updates layer by layer have it
///   (section 4.3); a projector of 2 bytes, r·min(m, n); moments r·max(m, n) each.
/// - Activations: 2 bytes for what torch keeps of each token and layer: x, x + o, both norms' outputs,
///   q, k, v, o, gate, up, silu(gate) and their product, with fused attention; of LoRA-FA neither the
///   norms' outputs nor that product (LoRA-FA, section 3.2: the inputs of A are not kept). With
///   checkpoints one x a layer and one layer's. Logits in bf16, in f32 and their gradient.
///
/// The context of CUDA and what its allocator leaves unused, a gigabyte or so, are not in it.
struct GPUMemory: MemoryEstimate {
  private let method: PlannedMethod
  private let model: ModelSize
  private let length: Int
  private let weights, gradients, optimizer: Int

  private static let (bf16, f32) = (2, 4)

  init(
    _ method: PlannedMethod, _ model: ModelSize, _ settings: TrainingPlan.Settings,
    form: ModelSize.Form
  ) {
    self.method = method
    self.model = model
    length = settings.length
    let own = method.settings(settings.ranks)
    let whole = model.trainedWeights.reduce(0) { $0 + $1.elementCount }
    let adapters = model.adapters.flatMap(\.parameterCounts).reduce(0, +)
    let frozenOfAdapters = model.adapters.reduce(0) { $0 + ($1.trainsA ? 0 : $1.rank * $1.inputs) }
    // Of the frozen numbers those of the layers may be codes.
    let configuration = model.configuration
    let tables = (configuration.isTied ? 1 : 2) * configuration.tableElementCount
    let trainedTables = model.trainedWeights.reduce(0) {
      $0 + (!$1.isOfLayer && $1.shape.count == 2 ? $1.elementCount : 0)
    }
    let layers = method.trainsModel ? 0 : configuration.layerElementCount
    weights =
      Int(Double(layers) * form.publishedBitCount / 8) + Self.bf16 * (tables - trainedTables)
      + Self.bf16 * whole + Self.f32 * (adapters + frozenOfAdapters)
    let galore: GaLore.Settings? = if case .galore(let settings) = own { settings } else { nil }
    let largest = model.trainedWeights.map(\.elementCount).max() ?? 0
    gradients = Self.bf16 * (galore == nil ? whole : largest) + Self.f32 * adapters
    let moments = Self.momentByteCount
    optimizer =
      moments(whole - own.projectedCount(model), Self.bf16, method.isEightBit)
      + moments(adapters, Self.f32, method.isEightBit)
      + moments(own.reducedCount(model), Self.bf16, method.isEightBit)
      + Self.bf16 * own.projectorCount(model)
      + (own.isAdaLoRA ? 2 * Self.f32 * adapters : 0)
  }

  private static func momentByteCount(_ count: Int, _ width: Int, _ isEightBit: Bool) -> Int {
    isEightBit ? 2 * count + 8 * ((count + 255) / 256) : 2 * width * count
  }

  func memory(rows: Int, keeping: LossPass.Keeping) -> PlannedRun.Memory {
    let configuration = model.configuration
    let (hidden, inner) = (configuration.hiddenSize, configuration.intermediateSize)
    let queries = configuration.headCount * configuration.headSize
    let keys = configuration.keyHeadCount * configuration.headSize
    let isFrozenA = model.adapters.contains { !$0.trainsA }
    let ranks = model.adapters.reduce(0) { $0 + $1.rank }
    let layer =
      (isFrozenA ? 2 : 4) * hidden + 2 * queries + 2 * keys + (isFrozenA ? 3 : 4) * inner
    let layers = configuration.layerCount
    let kept =
      keeping == .inputs
      ? layers * hidden + layer + ranks / max(1, layers) : layers * layer + ranks
    let tokens = rows * length
    return .init(
      weights: weights, activations: Self.bf16 * tokens * kept, gradients: gradients,
      optimizer: optimizer,
      rest: tokens * configuration.vocabularySize * (Self.bf16 + 2 * Self.f32))
  }
}

extension ModelSize.Form {
  /// The bits of a number on a GPU, as published.
  fileprivate var publishedBitCount: Double {
    switch self {
    case .numbers: 16
    // Double quantization takes scales from 0.5 to 0.127 bits a number (QLoRA, section 3).
    case .nf4: 4.127
    // A scale a row is next to nothing (LLM.int8, section 2), and so it is with groups of whole rows.
    case .int8: 8
    // A scale and an offset of 16 bits each (QA-LoRA, section 3.3).
    case .groups(let size): 4 + (size.map { 32 / Double($0) } ?? 0)
    }
  }
}
