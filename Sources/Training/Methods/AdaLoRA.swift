import CKernels
import LinearAlgebra
import Models

/// AdaLoRA: adapters B·diag(E)·A, whose singular values E are pruned to a budget over all layers
/// while they are trained.
///
/// The loss gets γ times the mean of ‖A·Aᵀ − I‖ and ‖Bᵀ·B − I‖, the norms themselves, as PEFT has it,
/// where the paper squares them. After each step every number's importance |p·g| is averaged (β₁), and
/// how far it strays from its average (β₂); a singular value's score is the product of both, plus the
/// means of A's and B's. The values of least score, of all layers together, become 0, until the budget
/// is met; before the last `finalSteps` steps they may come back.
///
/// Sources: Zhang et al. 2023, algorithm 1; PEFT `adalora/{layer,model}.py` (`RankAllocator`). Where
/// the budget is still that of the beginning, PEFT asks for a smallest score that there is not, and
/// ends; here nothing is pruned.
///
/// Memory: two numbers a trained number, beside those of the optimizer.
package struct AdaLoRA: TrainingMethod {
  /// The settings, by the names of PEFT's `AdaLoraConfig`.
  package struct Settings: Equatable, Sendable {
    /// `init_r`: the rank with which layers begin.
    package var initialRank = 12
    /// `target_r`: the mean rank that is left.
    package var targetRank = 8
    /// `tinit`: the last step, from 0, after which nothing is pruned.
    package var initialSteps = 0
    /// `tfinal`: so many steps before the end the budget is met.
    package var finalSteps = 1
    /// `deltaT`: the steps from one pruning to the next.
    package var interval = 1
    /// `beta1`: how much of the average stays.
    package var beta1 = 0.85
    /// `beta2`: how much of the average distance stays.
    package var beta2 = 0.85
    /// `orth_reg_weight`: γ.
    package var orthogonality = 0.5
    /// `total_step`.
    package var stepCount = 1

    package init() {}

    /// The singular values of so many layers that a step leaves, and whether it prunes.
    ///
    /// - Parameter step: counts from 0.
    package func budget(layers: Int, after step: Int) -> (count: Int, isPruning: Bool) {
      let (first, last) = (initialRank * layers, targetRank * layers)
      let end = stepCount - finalSteps
      if step <= initialSteps { return (first, false) }
      if step > end { return (last, true) }
      let rest = 1 - Double(step - initialSteps) / Double(end - initialSteps)
      let count = Int(Double(first - last) * (rest * rest * rest) + Double(last))
      return (count, step.isMultiple(of: interval) || step == end)
    }
  }

  private let settings: Settings
  private let layers: [Layer]

  /// What is remembered of a parameter, each of its shape.
  private struct Memory {
    let parameter: TrainableParameter
    /// The average of |p·g|, and of its distance from that.
    let importance, uncertainty: Rows

    init(_ parameter: TrainableParameter) {
      self.parameter = parameter
      importance = Rows(parameter.values.count, parameter.values.columns)
      uncertainty = Rows(parameter.values.count, parameter.values.columns)
    }

    /// The mean score of a row.
    func score(_ row: Int) -> Double {
      importance.rows(row..<row + 1).sumOfProducts(uncertainty.rows(row..<row + 1))
        / Double(importance.columns)
    }
  }

  /// One layer's adapter.
  private struct Layer {
    let adapter: LoRA
    let e: TrainableParameter
    /// Of A, B and E.
    let memories: [Memory]
    /// 1 for each singular value that the last pruning has left, (1, rank).
    let kept: Rows

    init(_ adapter: LoRA) {
      guard let e = adapter.e else { preconditionFailure("AdaLoRA has singular values") }
      self.adapter = adapter
      self.e = e
      memories = [adapter.a, adapter.b, e].map(Memory.init)
      kept = Rows([Float](repeating: 1, count: adapter.rank), columns: adapter.rank)
    }

    /// The score of each singular value.
    var scores: [Double] {
      (0..<adapter.rank).map { row in memories.reduce(0) { $0 + $1.score(row) } }
    }

    /// Sets what has been pruned to 0.
    func mask() {
      for row in 0..<adapter.rank where kept[0, row] == 0 { e.values[row, 0] = 0 }
    }
  }

  init(_ adapters: [LoRA], _ settings: Settings) {
    self.settings = settings
    layers = adapters.map(Layer.init)
  }

  func completeGradients(step: Int, _ team: ThreadTeam) -> Double {
    let factors = layers.flatMap { [$0.adapter.a, $0.adapter.b] }
    let weight = settings.orthogonality / Double(factors.count)
    let norms = Rows(1, factors.count)
    team.forEach(layers.count) { _, place in
      layers[place].adapter.completeGradients()
      for number in [2 * place, 2 * place + 1] {
        norms[0, number] = Float(factors[number].addOrthogonality(weight))
      }
    }
    return norms.values.reduce(0) { $0 + weight * Double($1) }
  }

  func afterUpdate(step: Int, rate: Double, _ optimizer: AdamW, _ team: ThreadTeam) {
    let end = settings.stepCount - settings.finalSteps
    if step < end { remember(team) }
    let (budget, isPruning) = settings.budget(layers: layers.count, after: step)
    if isPruning, step <= end { prune(to: budget) }
    if isPruning || step > end { for layer in layers { layer.mask() } }
  }

  /// Takes the step's parameters and the gradients that led to them into the averages.
  private func remember(_ team: ThreadTeam) {
    let constants = pef_importance(
      beta1: Float(settings.beta1), one_less_beta1: Float(1 - settings.beta1),
      beta2: Float(settings.beta2), one_less_beta2: Float(1 - settings.beta2))
    let memories = layers.flatMap(\.memories)
    team.forEach(memories.count) { _, place in
      let memory = memories[place]
      var constants = constants
      memory.parameter.values.withSpan { values in
        memory.parameter.gradient.withSpan { gradient in
          memory.importance.withSpan { importance in
            memory.uncertainty.withSpan { uncertainty in
              // Four lists of one length, of which the kernel reads and writes as many elements.
              unsafe importance.withUnsafeMutableBufferPointer { average in
                unsafe uncertainty.withUnsafeMutableBufferPointer { distance in
                  unsafe values.withUnsafeMutableBufferPointer { p in
                    unsafe gradient.withUnsafeMutableBufferPointer { g in
                      unsafe pef_importance_f32(
                        &constants, average.baseAddress, distance.baseAddress, p.baseAddress,
                        g.baseAddress, p.count)
                    }
                  }
                }
              }
            }
          }
        }
      }
    }
  }

  /// Keeps the singular values whose score is above that of the last one that is one too many: equal
  /// ones go together.
  private func prune(to budget: Int) {
    let scores = layers.map(\.scores)
    let excess = settings.initialRank * layers.count - budget
    let threshold = excess > 0 ? scores.joined().sorted()[excess - 1] : -.infinity
    for (layer, own) in zip(layers, scores) {
      for (row, score) in own.enumerated() { layer.kept[0, row] = score > threshold ? 1 : 0 }
    }
  }

  var state: [(name: String, values: Rows)] {
    layers.flatMap { layer in
      layer.memories.flatMap { memory in
        [
          (memory.parameter.name + ".importance", memory.importance),
          (memory.parameter.name + ".uncertainty", memory.uncertainty),
        ]
      } + [(layer.e.name + ".kept", layer.kept)]
    }
  }
}
