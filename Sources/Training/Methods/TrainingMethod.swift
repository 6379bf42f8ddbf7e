import Files
package import LinearAlgebra
package import Models

/// What a method does in each step besides the optimizer's update.
///
/// A step is: the gradients of all batches, `completeGradients`, clipping, `beforeUpdate`, the
/// optimizer's update, `afterUpdate`.
package protocol TrainingMethod: Sendable {
  /// Completes the gradients that backward passes have left.
  ///
  /// - Returns: what the method's own terms add to the loss.
  func completeGradients(_ team: ThreadTeam) -> Double

  /// Called when gradients have been clipped, before the optimizer reads them.
  func beforeUpdate(_ team: ThreadTeam)

  /// Called when the optimizer has moved the parameters; steps count from 0.
  func afterUpdate(step: Int, _ team: ThreadTeam)

  /// What it remembers from step to step, by the names under which checkpoints save it.
  var state: [(name: String, values: Rows)] { get }
}

extension TrainingMethod {
  package func completeGradients(_ team: ThreadTeam) -> Double { 0 }
  package func beforeUpdate(_ team: ThreadTeam) {}
  package func afterUpdate(step: Int, _ team: ThreadTeam) {}
  package var state: [(name: String, values: Rows)] { [] }
}

/// LoRA, DoRA and whole weights: the optimizer's update is all.
struct PlainMethod: TrainingMethod {}

/// The methods by which adapters are trained, with what each has to be told.
package enum AdapterMethod: Equatable, Sendable {
  /// LoRA and DoRA.
  case lora
  /// LoRA with its A frozen.
  case loraFA
  /// LoRA in the form of singular values, which are pruned to a budget.
  case adaLoRA(AdaLoRA.Settings)

  /// The optimizer's settings: LoRA-FA's are those of its own.
  package var adamW: AdamW.Settings {
    var settings = AdamW.Settings()
    if self == .loraFA { (settings.style, settings.epsilon) = (.transformers, 1e-6) }
    return settings
  }

  /// What it does in the steps of some adapters.
  ///
  /// - Throws: as `LoRAFA`.
  func make(for adapters: [LoRA]) throws(PeftoolError) -> any TrainingMethod {
    switch self {
    case .lora: PlainMethod()
    case .loraFA: try LoRAFA(adapters)
    case .adaLoRA(let settings): AdaLoRA(adapters, settings)
    }
  }
}
