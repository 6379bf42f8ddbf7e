import Checkpoints
import Examples
import Files
import Glibc
import JSON
import LinearAlgebra
import Models
import Reports
import Tensors
import Tokenizers
import Training

/// A run of `finetune`: the model, the data and the settings, all checked before the first step.
struct FinetuneJob {
  private let command: FinetuneCommand
  private let trainer: Trainer
  private let output: FinetuneOutput
  private let data: TokenExamples
  private let evaluationData: TokenExamples?
  private let settings: TrainingRun.Settings
  private let team: ThreadTeam
  private let tokenizer: ExampleTokenizer?
  private let reportFile: ReportFile?
  /// What will be done.
  let plan: FinetunePlan

  /// Reads the data and opens the model.
  ///
  /// - Parameter freeByteCount: the memory that there is; nil where nobody knows.
  /// - Throws: what is wrong with either; `io` where the output cannot be written; `unsupported`
  ///   where there is not the memory.
  init(
    _ command: FinetuneCommand,
    freeByteCount: @autoclosure () -> Int? = SystemMemory.availableByteCount
  ) throws {
    self.command = command
    reportFile = command.report.map {
      ReportFile(path: $0, isForced: command.resume, wayOut: "name another file")
    }
    try Self.checkOutput(command)
    try reportFile?.check(beside: command.output)
    team = ThreadTeam(count: command.threads ?? availableProcessorCount)
    let stored = try Checkpoint(opening: command.model)
    try LanguageModel.check(stored)
    guard Folder.isFolder(command.model) else {
      throw PeftoolError(
        .unsupported, "is a file, expected the model's folder, with its config.json",
        path: command.model)
    }
    if command.adapter.quantize != nil, try !QuantizedWeight.all(in: stored).isEmpty {
      throw PeftoolError(
        .unsupported, "is quantized already: leave --quantize out", path: command.model)
    }
    let checkpoint = try command.longTexts.stretched(stored, existing: command.adapter.existing)
    // What is quickly read comes first.
    let configuration = try LlamaConfiguration(of: checkpoint)
    try command.longTexts.check(configuration, path: command.model)
    // A run that goes on has the day on which it began in its texts.
    let reader = try TrainingDataReader(
      command, configuration,
      day: command.resume ? TrainingCheckpoint.setting("day", in: command.output) : nil)
    tokenizer = reader.tokenizer
    data = try reader.read(command.data.paths)
    evaluationData =
      command.data.evaluationPaths.isEmpty ? nil : try reader.read(command.data.evaluationPaths)
    var settings = Self.settings(command, maximumLength: reader.maximumLength)
    let stepsPerEpoch = TrainingRun.stepsPerEpoch(data, settings)
    let options = command.training
    let stepCount =
      options.maxSteps ?? max(1, Int(((options.epochs ?? 1) * Double(stepsPerEpoch)).rounded(.up)))
    let method = try command.method(stepCount: stepCount)
    settings.firstCountedStep = method.firstCountedStep
    self.settings = settings
    let start = try TrainingStart(command, method, for: checkpoint)
    let weights = try start.trainedWeights(
      besides: command.weights.weights(
        ofModel: command.model,
        besides: command.longTexts.long ? LongTextOptions.modules : []), of: configuration)
    try start.check(configuration, weights, path: command.model)
    try MemoryRoom.check(
      Self.modelByteCount(command, checkpoint, weights), for: "the model", isBesideModel: false,
      free: freeByteCount(), wayOut: Self.wayOut(command), path: command.model)
    let model = try Llama(
      checkpoint, quantizing: command.adapter.quantize == .nf4, training: weights,
      replacing: start.own
    ) { (module, weight, original) throws(PeftoolError) in
      do throws(PeftoolError) {
        return try start.adapter(of: module, weight, original: original)
      } catch {
        throw error.at(path: command.model)
      }
    }
    try checkpoint.source.verifyUnchanged()
    try start.check(model, weights, path: command.model)
    let warmup = options.warmup
    var trainerSettings = Trainer.Settings(
      schedule: Schedule(
        kind: options.schedule,
        warmupSteps: warmup < 1 ? Int((Double(stepCount) * warmup).rounded(.up)) : Int(warmup),
        stepCount: stepCount), method: method,
      isEightBit: options.optimizer == .adamwEightBit)
    if let rate = options.learningRate { trainerSettings.learningRate = rate }
    trainerSettings.rateRatio = options.ratio
    trainerSettings.seed = options.seed
    trainerSettings.adamW.weightDecay = options.weightDecay
    trainerSettings.maximumGradientNorm =
      options.maximumGradientNorm > 0 ? options.maximumGradientNorm : nil
    trainer = try Trainer(model, trainerSettings, team: team)
    let adapterConfiguration = try start.json(
      of: model, base: command.model, others: weights.json(isTied: model.configuration.isTied))
    if let adapterConfiguration {
      output = FinetuneOutput(
        command.adapter.method == .shira
          ? TrainedSparseAdapter(trainer, configuration: adapterConfiguration)
          : TrainedAdapter(
            model, configuration: adapterConfiguration, leavesRanks: method.leavesRanks),
        config: checkpoint.isView ? try checkpoint.modelConfig : nil)
    } else {
      output = FinetuneOutput(
        model, of: stored, config: try checkpoint.modelConfig, dtype: command.dtype?.dtype)
    }
    plan = try FinetunePlan(
      command, trainer: trainer, data: data, evaluationData: evaluationData, settings: settings,
      stepsPerEpoch: stepsPerEpoch, stepCount: stepCount, threads: team.count,
      freeByteCount: freeByteCount(),
      fingerprint: command.fingerprint(
        model: ModelFingerprint(checkpoint), data, evaluationData, day: reader.day, settings,
        stepCount: stepCount))
    try checkRoom()
  }

  /// The bytes of the model as it is trained: of one that is trained whole in f32, and of `full` with
  /// a gradient and two moments for each number.
  private static func modelByteCount(
    _ command: FinetuneCommand, _ checkpoint: Checkpoint, _ weights: TrainedWeights
  ) -> Int {
    if command.adapter.method == .shira {
      return checkpoint.tensors.reduce(0) { sum, tensor in
        let module = tensor.name.split(separator: ".").dropLast().joined(separator: ".")
        return sum + (weights.contains(module) ? 4 * tensor.elementCount : tensor.byteCount)
      }
    }
    guard command.adapter.method.trainsModel else {
      return Llama.byteCount(of: checkpoint, quantizing: command.adapter.quantize == .nf4)
    }
    let count = checkpoint.tensors.reduce(0.0) { $0 + Double($1.elementCount) }
    return Int(min(count * (command.adapter.method == .full ? 16 : 4), 0x1p62))
  }

  /// What takes less memory.
  private static func wayOut(_ command: FinetuneCommand) -> String? {
    switch command.adapter.method {
    case .full: "--method galore"
    case .shira, .galore, .qaLoRA: nil
    default: command.adapter.quantize == nil ? "--quantize nf4" : nil
    }
  }

  /// The plan with an estimate of the time, from a short measurement.
  func measuredPlan() -> FinetunePlan {
    var plan = plan
    plan.tokensPerSecond = StepTiming.tokensPerSecond(trainer, data, team: team, plan: plan)
    let cost = StepCost(
      trainer.model.size, trainer.settings.method,
      isEightBit: trainer.settings.adamW.isEightBit, length: plan.longest, keeping: plan.keeping,
      isGrouped: plan.groupSize != nil)
    plan.secondsBesidePasses = cost.secondsBesidePasses(
      steps: plan.stepCount, .measured(by: team))
    return plan
  }

  private static func checkOutput(_ command: FinetuneCommand) throws(PeftoolError) {
    let steps = try TrainingCheckpoint.steps(in: command.output)
    if command.resume {
      guard !steps.isEmpty else {
        throw PeftoolError(.io, "has no checkpoint to go on from", path: command.output)
      }
      let trainsModel = command.adapter.method.trainsModel
      let last = FinetuneOutput.lastName(trainsModel: trainsModel)
      guard !Folder.exists(Folder.path(command.output, last)) else {
        throw PeftoolError(
          .io,
          "has its \(trainsModel ? "model" : "adapter") already: training is done, and --resume has nothing to go on with",
          path: command.output)
      }
      return
    }
    let parent = Folder.parent(of: command.output)
    guard Folder.isFolder(parent) else {
      throw PeftoolError(.io, "is no folder, in which -o is to make one", path: parent)
    }
    guard Folder.exists(command.output) else { return }
    // A run that ended before its first checkpoint has left its log.
    guard Folder.isFolder(command.output),
      try Folder.names(in: command.output).allSatisfy({ $0 == TrainingLog.name })
    else {
      throw PeftoolError(
        .io,
        steps.isEmpty
          ? "exists already: name another output"
          : "has the checkpoint of step \(steps[0]): --resume goes on from there, or name another "
            + "output", path: command.output)
    }
  }

  /// Refuses a run that would end for want of room on the disk: for the adapter, and for the last
  /// checkpoint, the best and one that is being written, or of a run without them that of an
  /// interrupt.
  private func checkRoom() throws(PeftoolError) {
    let byteCount = output.result.byteCount
    let checkpoint = byteCount + trainer.stateByteCount
    let isSaving = evaluationData != nil || settings.saveEvery != nil
    let needed = byteCount + (isSaving && !command.resume ? 3 : 1) * checkpoint
    let folder = Folder.parent(of: command.output)
    guard let free = Folder.freeByteCount(at: folder), free < needed else { return }
    throw PeftoolError(
      .io,
      "has room for \(free.byteText), and what is trained with its checkpoints may take "
        + needed.byteText, path: folder)
  }

  private static func settings(
    _ command: FinetuneCommand, maximumLength: Int
  ) -> TrainingRun.Settings {
    var settings = TrainingRun.Settings()
    settings.rowsPerBatch = command.training.batchSize
    settings.accumulation = command.training.accumulation
    settings.arrangement =
      command.data.packing
      ? .packed(capacity: maximumLength) : command.data.groupByLength ? .lengthGrouped : .shuffled
    settings.seed = command.training.seed
    settings.evaluateEvery = command.training.evaluateEvery
    settings.saveEvery = command.training.saveEvery
    settings.patience = command.training.patience
    return settings
  }

  /// Trains, and writes the adapter.
  ///
  /// - Throws: `io`; `different` where the loss is not finite, or a checkpoint is of other settings.
  func run() throws(PeftoolError) -> FinetuneReport {
    let started = monotonicSeconds()
    let folder = Folder.trimmed(command.output)
    if !Folder.exists(folder) {
      try systemCall("cannot create", path: folder) { unsafe mkdir(folder, 0o777) }
    }
    let pass = LossPass(
      trainer.model, team: team, tokens: plan.tokensPerBatch, longest: plan.longest,
      keeping: plan.keeping, groupSize: plan.groupSize)
    let run = TrainingRun(
      trainer, pass: pass, result: output.result, data: data, evaluationData: evaluationData,
      settings,
      stepCount: plan.stepCount, folder: folder, fingerprint: plan.fingerprint)
    // Before a checkpoint is read the model is what training began with.
    let samples = try samplesBefore()
    if command.resume, let step = try TrainingCheckpoint.steps(in: folder).first {
      try run.resume(at: step)
    }
    let log = try TrainingLog(in: folder, upTo: trainer.optimizer.stepCount)
    Interruption.ask(
      saying: "interrupted: finishing the step and saving it; a second time ends at once")
    let progress = FinetuneProgress(
      stepCount: plan.stepCount, from: trainer.optimizer.stepCount, isQuiet: command.quiet)
    var first: Trainer.Step?
    var last: Trainer.Step?
    var evaluations: [(step: Int, loss: Double)] = []
    let ending = try run.run(isInterrupted: { Interruption.isRequested }) {
      (event) throws(PeftoolError) in
      switch event {
      case .step(let step):
        first = first ?? step
        last = step
        progress.show(step)
        try log.append(step.json(seconds: progress.secondsOfLastStep))
      case .evaluation(let step, let loss):
        evaluations.append((step, loss))
        progress.show(evaluation: loss, after: step)
        try log.append(
          .object([.init("step", .number(step)), .init("eval_loss", .number(loss))]))
      case .saved: progress.skipTime()
      }
    }
    progress.finish()
    defer { Interruption.askNoMore() }
    if case .interrupted = ending {} else { try run.restoreBest() }
    var report = FinetuneReport(
      output: command.output, ending: ending, plan: plan, first: first, last: last,
      stepCount: trainer.optimizer.stepCount,
      evaluations: evaluations, best: run.best, seconds: monotonicSeconds() - started,
      tokensPerSecond: progress.tokensPerSecond, ranks: trainer.keptRanks,
      findings: trainer.findings)
    if case .interrupted = ending { return report }
    try trainer.checkIsFinite()
    report.roundingLoss = try write(report, to: folder, of: run)
    try reportFile?.write(
      report.page(
        log: TrainingLog.entries(Folder.path(folder, TrainingLog.name), upTo: plan.stepCount),
        samples: samples.map { (samples, given, before) throws(PeftoolError) in
          try zip(given, zip(before, samples.texts())).map {
            [$0.prompt, $0.expected, $1.0, $1.1]
          }
        } ?? []))
    return report
  }

  /// Writes what has been trained; where that fails, a checkpoint, so that it is not lost.
  ///
  /// - Returns: what rounding takes of the change.
  /// - Throws: as `FinetuneOutput.write`.
  private func write(
    _ report: FinetuneReport, to folder: String, of run: TrainingRun
  ) throws(PeftoolError) -> Double? {
    let card = ModelCard(
      base: command.model, method: trainer.methodName,
      isModel: command.adapter.method.trainsModel, facts: report.lines)
    do throws(PeftoolError) {
      return try output.write(card: card.text, to: folder, threads: team.count)?.value
    } catch {
      guard (try? run.saveLast()) != nil else { throw error }
      throw PeftoolError(
        error.kind, error.reason + "; the last step is saved, and --resume writes it again",
        tensor: error.tensor, path: error.path)
    }
  }

  /// What a report shows of the model's texts; nil without a report, and for data that are tokens.
  private func samplesBefore() throws(PeftoolError) -> (
    FinetuneSamples, given: [(prompt: String, expected: String)], before: [String]
  )? {
    guard command.report != nil, let tokenizer else { return nil }
    let samples = FinetuneSamples(
      evaluationData ?? data,
      language: LanguageModel(
        trainer.model, path: command.model, tokenizer.encoder, tokenizer.tokens), team: team)
    return (samples, try samples.givenTexts(), try samples.texts())
  }
}

extension Trainer.Step {
  /// A line of `log.jsonl`.
  func json(seconds: Double) -> JSON {
    .object([
      .init("step", .number(number)), .init("loss", .number(loss)),
      .init("grad_norm", .number(gradientNorm)), .init("learning_rate", .number(learningRate)),
      .init("tokens", .number(tokenCount)), .init("labels", .number(labelCount)),
      .init("seconds", .number(seconds)),
    ])
  }
}
