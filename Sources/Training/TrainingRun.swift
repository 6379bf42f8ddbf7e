package import Examples
package import Files
package import JSON
package import Models

/// A training from its first step, or from a checkpoint, to its end.
///
/// All that a step depends on follows from the settings and the step's number, so that a run that
/// was broken off goes on as if it had not been.
package final class TrainingRun {
  /// How data become steps, and what is done between them.
  package struct Settings: Equatable, Sendable {
    /// Rows that go through the model together.
    package var rowsPerBatch = 4
    /// Batches of a step.
    package var accumulation = 1
    /// How examples become rows.
    package var arrangement = Batches.Arrangement.shuffled
    /// What their order is drawn from.
    package var seed: UInt64 = 0
    /// The steps from one evaluation to the next; nil for none but the first and the last.
    package var evaluateEvery: Int?
    /// The steps from one checkpoint to the next; nil for none but those of evaluations.
    package var saveEvery: Int?
    /// How many evaluations in a row may not be better before training ends; nil for any number.
    package var patience: Int?
    /// The step before which evaluations are neither the best nor worse: what is trained has not yet
    /// the form in which it is to be written.
    package var firstCountedStep = 0

    package init() {}
  }

  /// What happens in a run.
  package enum Event: Sendable {
    /// A step was made.
    case step(Trainer.Step)
    /// The mean loss on the evaluation data after a step; 0 is before the first.
    case evaluation(step: Int, loss: Double)
    /// A checkpoint was written.
    case saved(step: Int)
  }

  /// How a run ended.
  package enum Ending: Equatable, Sendable {
    /// All steps were made.
    case done
    /// Evaluations were no longer better.
    case stoppedEarly(step: Int)
    /// Somebody asked it to stop; a checkpoint is there.
    case interrupted(step: Int)
  }

  /// The best evaluation so far.
  package private(set) var best: (step: Int, loss: Double)?
  private var worseCount = 0
  private var savedStep: Int?

  private let trainer: Trainer
  private let pass: LossPass
  private let result: any TrainingResult
  private let data: TokenExamples
  private let evaluationData: TokenExamples?
  private let settings: Settings
  private let stepCount: Int
  private let folder: String
  /// What the settings come to, which a checkpoint has to agree with.
  private let fingerprint: JSON

  /// Prepares a run; nothing is computed.
  ///
  /// - Parameters:
  ///   - stepCount: all steps.
  ///   - folder: where checkpoints go.
  ///   - fingerprint: the settings that a step depends on, an object.
  package init(
    _ trainer: Trainer, pass: LossPass, result: any TrainingResult, data: TokenExamples,
    evaluationData: TokenExamples?, _ settings: Settings, stepCount: Int, folder: String,
    fingerprint: JSON
  ) {
    self.trainer = trainer
    self.pass = pass
    self.result = result
    self.data = data
    self.evaluationData = evaluationData
    self.settings = settings
    self.stepCount = stepCount
    self.folder = folder
    self.fingerprint = fingerprint
  }

  /// The steps of one pass over the data; the last may have fewer batches.
  package static func stepsPerEpoch(_ data: TokenExamples, _ settings: Settings) -> Int {
    let batches = batches(data, settings, epoch: 0).count
    return (batches + settings.accumulation - 1) / settings.accumulation
  }

  private static func batches(
    _ data: TokenExamples, _ settings: Settings, epoch: Int
  ) -> Batches {
    Batches(
      data, rowsPerBatch: settings.rowsPerBatch, arrangement: settings.arrangement,
      seed: settings.seed, epoch: epoch, padding: 0)
  }

  /// Goes back to where a checkpoint was written.
  ///
  /// - Throws: as `TrainingCheckpoint.read`, and `different` where it is of other settings.
  package func resume(at step: Int) throws(PeftoolError) {
    let state = try TrainingCheckpoint.state(after: step, in: folder)
    do throws(PeftoolError) {
      try check(state["settings"] ?? .null)
      if let value = state["best_step"], value != .null {
        best = (try value.int(named: "best_step"), try state.double(at: "best_loss"))
      }
      worseCount = try state.int(at: "evaluations_without_gain")
    } catch {
      throw error.at(path: TrainingCheckpoint.path(folder, step: step))
    }
    try TrainingCheckpoint.read(trainer, result, step: step, from: folder)
  }

  private func check(_ known: JSON) throws(PeftoolError) {
    for member in try fingerprint.object(named: "settings") {
      let other = known[member.key] ?? .null
      guard other == member.value else {
        throw PeftoolError(
          .different,
          "was made with \(member.key) \(other.summary), and now it is \(member.value.summary)")
      }
    }
  }

  private var state: JSON {
    .object([
      .init("step", .number(trainer.optimizer.stepCount)),
      .init("best_step", best.map { .number($0.step) } ?? .null),
      .init("best_loss", best.map { .number($0.loss) } ?? .null),
      .init("evaluations_without_gain", .number(worseCount)), .init("settings", fingerprint),
    ])
  }

  /// Makes the steps that are left; afterwards the model has the values of the last one.
  ///
  /// - Parameters:
  ///   - isInterrupted: asked after each step.
  ///   - report: told of each event.
  /// - Throws: as `Trainer.step`, `io`, and what `report` throws.
  package func run(
    isInterrupted: () -> Bool, _ report: (Event) throws(PeftoolError) -> Void
  ) throws(PeftoolError) -> Ending {
    var step = trainer.optimizer.stepCount
    if step == 0, best == nil { try evaluate(after: 0, report) }
    let stepsPerEpoch = Self.stepsPerEpoch(data, settings)
    var epoch = -1
    var batches = Self.batches(data, settings, epoch: 0)
    while step < stepCount {
      if let patience = settings.patience, worseCount >= patience {
        return .stoppedEarly(step: step)
      }
      if step / stepsPerEpoch != epoch {
        epoch = step / stepsPerEpoch
        batches = Self.batches(data, settings, epoch: epoch)
      }
      let first = step % stepsPerEpoch * settings.accumulation
      let last = min(first + settings.accumulation, batches.count)
      let made = try trainer.step((first..<last).map { TokenBatch(batches[$0]) }, pass: pass)
      step = made.number
      try report(.step(made))
      let isLast = step == stepCount
      if evaluationData != nil, isLast || step.isMultiple(of: settings.evaluateEvery ?? .max) {
        try evaluate(after: step, report)
      } else if !isLast, step.isMultiple(of: settings.saveEvery ?? .max) {
        try save(report)
      }
      if !isLast, isInterrupted() {
        if savedStep != step { try save(report) }
        return .interrupted(step: step)
      }
    }
    return .done
  }

  /// Writes a checkpoint of the last step, where there is none.
  ///
  /// - Throws: `io`.
  package func saveLast() throws(PeftoolError) {
    // After the last evaluation one was written, and the model may have the best one's values by now.
    guard evaluationData == nil, savedStep != trainer.optimizer.stepCount else { return }
    try save { _ in }
  }

  /// Gives the model the values of the best evaluation.
  ///
  /// - Throws: as `TrainingResult.read`.
  package func restoreBest() throws(PeftoolError) {
    guard let best, best.step != trainer.optimizer.stepCount else { return }
    try result.read(from: TrainingCheckpoint.path(folder, step: best.step))
  }

  private func evaluate(
    after step: Int, _ report: (Event) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    guard let evaluationData else { return }
    let batches = Batches(
      evaluationData, rowsPerBatch: settings.rowsPerBatch, arrangement: .inOrder, seed: 0,
      epoch: 0, padding: 0)
    var sum = 0.0
    var count = 0
    for number in 0..<batches.count {
      let losses = pass.losses(TokenBatch(batches[number]))
      sum += losses.reduce(0, +)
      count += losses.count
    }
    let loss = sum / Double(max(1, count))
    guard loss.isFinite else {
      throw PeftoolError(
        .different,
        "the evaluation after step \(step) has the loss \(loss)"
          + (step == 0 ? "" : "; a lower --learning-rate may help"))
    }
    if step >= settings.firstCountedStep {
      let isBest = loss < best?.loss ?? .infinity
      worseCount = isBest ? 0 : worseCount + 1
      if isBest { best = (step, loss) }
    }
    try report(.evaluation(step: step, loss: loss))
    try save(report)
  }

  /// Writes a checkpoint, and removes all but it and the best.
  private func save(_ report: (Event) throws(PeftoolError) -> Void) throws(PeftoolError) {
    let step = trainer.optimizer.stepCount
    try TrainingCheckpoint.write(trainer, result, state: state, into: folder)
    try TrainingCheckpoint.prune(in: folder, keeping: [step, best?.step ?? step])
    savedStep = step
    try report(.saved(step: step))
  }
}
