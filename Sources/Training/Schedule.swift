import Glibc

/// How the learning rate goes over the steps.
///
/// Source: transformers' `optimization.py` (`get_constant_schedule_with_warmup`,
/// `get_linear_schedule_with_warmup`, `get_cosine_schedule_with_warmup`). With warm-up the first step
/// has a rate of 0, and the last step's is not 0.
package struct Schedule: Equatable, Sendable {
  /// The kinds, by transformers' names.
  package enum Kind: String, CaseIterable, Sendable {
    case constant, linear, cosine
  }

  /// The kind.
  package let kind: Kind
  /// The steps in which the rate rises.
  package let warmupSteps: Int
  /// All steps.
  package let stepCount: Int

  package init(kind: Kind, warmupSteps: Int, stepCount: Int) {
    self.kind = kind
    self.warmupSteps = warmupSteps
    self.stepCount = stepCount
  }

  /// What the rate of a step is multiplied by; steps count from 0.
  package func factor(at step: Int) -> Double {
    if step < warmupSteps { return Double(step) / Double(max(1, warmupSteps)) }
    let rest = Double(max(1, stepCount - warmupSteps))
    return switch kind {
    case .constant: 1
    case .linear: max(0, Double(stepCount - step) / rest)
    case .cosine: max(0, 0.5 * (1 + cos(.pi * Double(step - warmupSteps) / rest)))
    }
  }
}
