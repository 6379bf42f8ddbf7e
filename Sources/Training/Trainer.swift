package import Files
package import LinearAlgebra
package import Models

/// What is trained of a model, and what makes a step of it.
///
/// Peak memory: the model's, a pass's (`LossPass`), and `TrainingSize`: of a trained number 16 bytes,
/// which are itself, its gradient and two moments; an adapter's factors laid out for products; and
/// what the method remembers, of AdaLoRA 8 bytes more a number. Of GaLore's matrices the gradient
/// and the moments are those of `GaLore`.
package final class Trainer {
  /// How a step is made.
  package struct Settings: Equatable, Sendable {
    /// The highest learning rate.
    package var learningRate: Double
    /// What the rate of B, of a magnitude, and of a norm or a bias is multiplied by (LoRA+, as
    /// PEFT's `create_loraplus_optimizer` has it).
    package var rateRatio = 1.0
    /// What is done besides the optimizer's updates.
    package let method: MethodSettings
    /// The optimizer's settings.
    package var adamW: AdamW.Settings
    /// The norm to which gradients are clipped; nil for none.
    package var maximumGradientNorm: Double? = 1
    /// What the dropout of adapters is drawn from.
    package var seed: UInt64 = 0
    /// How the rate goes over the steps.
    package var schedule: Schedule

    /// A method's settings, and defaults.
    ///
    /// - Parameter isEightBit: whether the optimizer keeps its moments in 8 bits.
    package init(schedule: Schedule, method: MethodSettings = .lora, isEightBit: Bool = false) {
      self.schedule = schedule
      self.method = method
      adamW = method.adamW(isEightBit: isEightBit)
      learningRate = method.learningRate
    }
  }

  /// What a step has done.
  package struct Step: Equatable, Sendable {
    /// The step's number, from 1.
    package let number: Int
    /// The mean of all labels' losses, before the step, with what the method's own terms add.
    package let loss: Double
    /// The norm of the gradients, before they are clipped.
    package let gradientNorm: Double
    /// The learning rate.
    package let learningRate: Double
    /// The labels.
    package let labelCount: Int
    /// All tokens.
    package let tokenCount: Int
  }

  /// The model.
  package let model: Llama
  /// What is trained: the adapters in the order of the modules, then the model's own weights.
  package let parameters: [TrainableParameter]
  /// The optimizer.
  package let optimizer: AdamW
  /// What is done besides.
  let method: any TrainingMethod
  /// How steps are made.
  package let settings: Settings
  private let team: ThreadTeam
  /// For each parameter the factor on the learning rate.
  private let rateFactors: [Double]

  /// A model that is trained from where it is.
  ///
  /// - Throws: as `MethodSettings.make`.
  package init(
    _ model: Llama, _ settings: Settings, team: ThreadTeam
  ) throws(PeftoolError) {
    self.model = model
    self.settings = settings
    self.team = team
    let adapters = model.adapters.map(\.adapter)
    parameters = adapters.flatMap(\.parameters) + model.trainedWeights.map(\.parameter)
    rateFactors =
      adapters.flatMap { adapter in
        adapter.parameters.map { $0 === adapter.a || $0 === adapter.e ? 1 : settings.rateRatio }
      } + model.trainedWeights.map { $0.isVector ? settings.rateRatio : 1 }
    method = try settings.method.make(for: model, team: team)
    optimizer = AdamW(method.moved(parameters), settings.adamW)
  }

  /// What is trained, by the name of its method.
  package var methodName: String {
    switch settings.method {
    case .lora, .rankSearch, .sparse:
      if model.adapters.contains(where: { $0.adapter.magnitude != nil }) {
        "DoRA"
      } else {
        model.adapters.contains { $0.adapter.groupSize > 1 } ? "QA-LoRA" : "LoRA"
      }
    case .qaLoRA: "QA-LoRA"
    case .loraFA: "LoRA-FA"
    case .adaLoRA: "AdaLoRA"
    case .shira: "SHiRA"
    case .full: "Full"
    case .galore: "GaLore"
    }
  }

  /// The ranks that the method has left each layer; nil of those that leave all.
  package var keptRanks: [Int]? {
    settings.method.leavesRanks ? model.adapters.map { $0.adapter.keptRanks.count } : nil
  }

  /// What each layer has got in a search for ranks; empty before it, and without one.
  package var findings: [RankSearch.Finding] { (method as? RankSearch)?.findings ?? [] }

  /// The trained numbers.
  package var parameterCount: Int {
    // GaLore moves projections of what it trains.
    (settings.method.trainsModel ? parameters : optimizer.parameters)
      .reduce(0) { $0 + $1.elementCount }
  }

  /// The bytes of what is trained that have been in memory since the model was read.
  package var residentByteCount: Int {
    4 * model.trainedWeights.reduce(0) { $0 + $1.parameter.elementCount }
  }

  /// The bytes of what a checkpoint has besides what is trained.
  package var stateByteCount: Int {
    size.moments + method.state.reduce(0) { $0 + 4 * $1.values.count * $1.values.columns }
  }

  /// The memory that it takes with its model.
  package var size: TrainingSize {
    TrainingSize(
      model.size, settings.method, isEightBit: settings.adamW.isEightBit, threads: team.count)
  }

  /// Refuses parameters that are no numbers, as a last step may leave them.
  ///
  /// - Throws: `different` with the name of the first.
  package func checkIsFinite() throws(PeftoolError) {
    for parameter in parameters where !parameter.values.isFinite {
      throw PeftoolError(
        .different,
        "is NaN or infinite after step \(optimizer.stepCount); a lower --learning-rate may help",
        tensor: parameter.name)
    }
  }

  /// Makes a step on the mean loss over all labels of some batches.
  ///
  /// - Throws: `different` where the loss or the norm of the gradients is not finite: the parameters
  ///   are then those before the step; as the method's `completeGradients` and `afterUpdate`.
  package func step(_ batches: [TokenBatch], pass: LossPass) throws(PeftoolError) -> Step {
    let labelCount = batches.reduce(0) { $0 + $1.labelCount }
    precondition(labelCount > 0, "examples have labels")
    for parameter in parameters where !parameter.sharesGradient { parameter.gradient.clear() }
    var sum = 0.0
    let number = optimizer.stepCount + 1
    for (place, batch) in batches.enumerated() {
      sum += pass.addGradients(
        batch, scale: 1 / Float(labelCount),
        dropout: Dropout(seed: settings.seed, step: number, batch: place)
      ) { matrices in
        method.take(matrices.filter(\.sharesGradient), step: number - 1, team)
      }.reduce(0, +)
    }
    let loss = try sum / Double(labelCount) + method.completeGradients(step: number - 1, team)
    let norm = method.gradientNorm(of: parameters, team)
    for (value, name) in [(loss, "loss"), (norm, "norm of the gradients")] where !value.isFinite {
      throw PeftoolError(
        .different, "step \(number): the \(name) is \(value); a lower --learning-rate may help")
    }
    if let limit = settings.maximumGradientNorm {
      GradientNorm.clip(optimizer.parameters, norm: norm, to: limit, team)
    }
    method.beforeUpdate(team)
    let rate = settings.learningRate * settings.schedule.factor(at: number - 1)
    optimizer.step(rates: rateFactors.map { rate * $0 }, team)
    try method.afterUpdate(step: number - 1, rate: rate, optimizer, team)
    let adapters = model.adapters
    team.forEach(adapters.count) { _, place in adapters[place].adapter.refresh() }
    return Step(
      number: number, loss: loss, gradientNorm: norm, learningRate: rate, labelCount: labelCount,
      tokenCount: batches.reduce(0) { $0 + $1.tokens.count })
  }
}
