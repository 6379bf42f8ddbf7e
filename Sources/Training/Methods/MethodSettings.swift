import Files
import LinearAlgebra
import Models

/// The method by which a model is trained, with what it has to be told.
package enum MethodSettings: Equatable, Sendable {
  /// LoRA and DoRA.
  case lora
  /// LoRA with its A frozen.
  case loraFA
  /// LoRA on the means of groups of inputs, which merges into a base in group-wise INT4.
  case qaLoRA
  /// LoRA in the form of singular values, which are pruned to a budget.
  case adaLoRA(AdaLoRA.Settings)
  /// LoRA and DoRA whose ranks are found while they are trained.
  case rankSearch(RankSearch.Settings)
  /// LoRA and DoRA whose factors become sparse.
  case sparse(SparseFactors.Settings)
  /// A few entries of each layer's weight.
  case shira(SparseWeights.Settings)
  /// All weights, without adapters.
  case full
  /// The same, of whose gradients the optimizer sees projections.
  case galore(GaLore.Settings)

  /// The learning rate where nobody says another.
  package var learningRate: Double {
    switch self {
    case .lora, .loraFA, .qaLoRA, .adaLoRA, .rankSearch, .sparse, .shira: 2e-4
    case .galore: 1e-4
    case .full: 2e-5
    }
  }

  /// The optimizer's settings: those of the methods that come with one of their own are its; in 8
  /// bits it is bitsandbytes' for all.
  package func adamW(isEightBit: Bool) -> AdamW.Settings {
    var settings = AdamW.Settings()
    settings.isEightBit = isEightBit
    if isEightBit { return settings }
    switch self {
    case .lora, .qaLoRA, .adaLoRA, .rankSearch, .sparse, .shira, .full: break
    case .loraFA, .galore: (settings.style, settings.epsilon) = (.transformers, 1e-6)
    }
    return settings
  }

  /// Whether there are no adapters: all of the model is trained.
  package var trainsModel: Bool {
    switch self {
    case .lora, .loraFA, .qaLoRA, .adaLoRA, .rankSearch, .sparse, .shira: false
    case .full, .galore: true
    }
  }

  /// Whether layers end with fewer ranks than they begin with.
  package var leavesRanks: Bool {
    switch self {
    case .adaLoRA, .rankSearch: true
    case .lora, .loraFA, .qaLoRA, .sparse, .shira, .full, .galore: false
    }
  }

  /// The step before which what is trained has not yet the form in which it is to be written.
  package var firstCountedStep: Int {
    switch self {
    case .adaLoRA(let settings): settings.stepCount - settings.finalSteps + 1
    case .rankSearch(let settings): settings.step
    case .sparse(let settings): settings.last
    case .lora, .loraFA, .qaLoRA, .shira, .full, .galore: 0
    }
  }

  /// What it does in the steps of a model.
  ///
  /// - Throws: as `LoRAFA` and `RankSearch`.
  func make(for model: Llama, team: ThreadTeam) throws(PeftoolError) -> any TrainingMethod {
    let adapters = model.adapters.map(\.adapter)
    return switch self {
    case .lora, .qaLoRA, .full: PlainMethod(adapters: adapters)
    case .loraFA: try LoRAFA(adapters)
    case .adaLoRA(let settings): AdaLoRA(adapters, settings)
    case .rankSearch(let settings): try RankSearch(model.adapters, settings)
    case .sparse(let settings): SparseFactors(adapters, settings)
    case .shira(let settings): SparseWeights(model.trainedMatrices, settings)
    case .galore(let settings): GaLore(model.trainedMatrices, settings, team: team)
    }
  }
}
