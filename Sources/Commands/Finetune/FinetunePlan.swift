import Examples
import Files
import JSON
import Models
import Reports
import Training

/// What a run of `finetune` will do, and in how much memory.
struct FinetunePlan {
  let model: String
  let output: String
  /// The layers with adapters, or with entries that are trained.
  let modules: Int
  let parameterCount: Int
  let method: String
  /// Whether the model is trained itself, and not an adapter.
  let trainsModel: Bool
  /// What the loss of a step has besides that of the tokens, as what follows it.
  let lossAddition: String
  /// What the adapter fits, where that is not the model as it is.
  private let fit: String?
  /// The modules that are trained whole, and the tokens whose rows are, in a sentence each.
  private let wholeLines: [(label: String, value: String)]
  /// The tensors that are trained whole, or of which rows are.
  let trainedWeightCount: Int
  let examples: TokenExamples
  let evaluationExampleCount: Int?
  let stepsPerEpoch: Int
  let stepCount: Int
  /// The most tokens that go through the model together, and of a text.
  let tokensPerBatch: Int
  let longest: Int
  /// The tokens of a group of LongLoRA's attention, and of the longest row that is trained on.
  let groupSize: Int?
  private let trainedRow: Int
  let keeping: LossPass.Keeping
  /// The bytes of the base, of what is trained, and of a pass.
  let memory: (base: Int, trained: Int, pass: Int)
  /// The speed that has been measured; nil where it has not.
  var tokensPerSecond: Double?
  /// What all steps take besides their passes: the optimizer, and the method's own work.
  var secondsBesidePasses = 0.0
  /// What a step depends on, for a run that goes on.
  let fingerprint: JSON

  /// The most tokens that go through a model together.
  static let maximumBatchTokenCount = 1 << 24

  /// Works it out.
  ///
  /// - Throws: `unsupported` where there is not the memory.
  init(
    _ command: FinetuneCommand, trainer: Trainer, data: TokenExamples,
    evaluationData: TokenExamples?, settings: TrainingRun.Settings, stepsPerEpoch: Int,
    stepCount: Int, threads: Int, freeByteCount: Int?, fingerprint: JSON
  ) throws(PeftoolError) {
    model = command.model
    output = command.output
    parameterCount = trainer.parameterCount
    trainsModel = command.adapter.method.trainsModel
    lossAddition =
      command.adapter.method == .adaLoRA
      ? ", with what keeps A and B orthonormal; evaluations are without" : ""
    fit =
      command.adapter.start == .loftq
      ? "MODEL as 'peftool quantize' codes it: use it beside that, or 'merge --simulate nf4'" : nil
    method = Self.methodText(command, trainer)
    let takesWeights = command.adapter.method.takesWeights
    // Of weights that are taken, but not all of them, entries are trained, and nothing whole.
    let layers = takesWeights && !trainsModel ? trainer.model.trainedWeights.count : 0
    modules = trainer.model.adapters.count + layers
    trainedWeightCount = trainer.model.trainedWeights.count - layers
    wholeLines = takesWeights ? [] : Self.wholeLines(trainer.model)
    examples = data
    evaluationExampleCount = evaluationData?.count
    self.stepsPerEpoch = stepsPerEpoch
    self.stepCount = stepCount
    let longest = max(data.longest, evaluationData?.longest ?? 0)
    self.longest = longest
    var row = longest
    if case .packed(let capacity) = settings.arrangement { row = max(capacity, longest) }
    // That of the evaluation data is no matter: they have whole texts.
    var trainedRow = data.longest
    if case .packed = settings.arrangement { trainedRow = row }
    self.trainedRow = trainedRow
    groupSize = command.longTexts.groupSize(row: trainedRow)
    let rows = min(settings.rowsPerBatch, max(data.count, evaluationData?.count ?? 0))
    let tokens = rows * row
    tokensPerBatch = tokens
    guard tokens <= Self.maximumBatchTokenCount else {
      throw PeftoolError(
        .unsupported,
        "a batch has \(tokens.groupedText) tokens, expected \(Self.maximumBatchTokenCount.groupedText) "
          + "at most: a smaller --batch-size or --max-length makes fewer", path: command.model)
    }
    func byteCount(_ keeping: LossPass.Keeping) -> Int {
      LossPass.byteCount(
        trainer.model, tokens: tokens, longest: longest, keeping: keeping, threads: threads)
    }
    let (base, trained) = (trainer.size.frozen, trainer.size.trainerByteCount)
    // The base is in memory already, and so is what is trained of a model itself.
    let resident = trainer.residentByteCount
    let free = freeByteCount.map { $0 - trained + resident }
    let keeping = command.training.checkpointing.keeping(free: free, byteCount(.everything))
    try MemoryRoom.check(
      byteCount(keeping), for: "a batch of \(tokens.groupedText) tokens", isBesideModel: true,
      free: free,
      wayOut: "a smaller --batch-size or --max-length"
        + (keeping == .inputs ? "" : " or --checkpoint-activations on"), path: command.model)
    self.keeping = keeping
    memory = (base, trained, byteCount(keeping))
    self.fingerprint = fingerprint
  }

  /// How long all steps take at the speed that has been measured; evaluations come to it.
  private var seconds: Double? {
    tokensPerSecond.map {
      Double(examples.ids.count) * Double(stepCount) / Double(stepsPerEpoch) / $0
        + secondsBesidePasses
    }
  }

  /// The method in words, with what it is used on.
  private static func methodText(_ command: FinetuneCommand, _ trainer: Trainer) -> String {
    let model = trainer.model
    if case .galore(let settings) = trainer.settings.method {
      return "GaLore of rank \(settings.rank) on \(model.trainedMatrices.count) matrices"
    }
    if case .shira(let settings) = trainer.settings.method {
      return "SHiRA of rank \(settings.rank) on \(model.trainedWeights.count.groupedText) layers, "
        + (settings.mask == .random ? "entries at random" : "the largest entries")
    }
    let ranks = Set(model.adapters.map(\.adapter.rank)).sorted()
    guard let least = ranks.first, let most = ranks.last else { return "all weights" }
    let change =
      switch trainer.settings.method {
      case .rankSearch(let settings):
        ", which is cut to \(settings.criterion.text) after step \(settings.step)"
      case .sparse(let settings):
        ", of which \(settings.sparsity.percentText) are 0 after step \(settings.last)"
      default: ""
      }
    return "\(trainer.methodName) of rank \(least)" + (most > least ? " to \(most)" : "")
      + (command.adapter.quantize == nil ? "" : " with its base in NF4")
      + " on \(model.adapters.count.groupedText) layers" + change
      + (isPooledOnZeroPoints(model)
        ? " of zero points, of which convert --layout mlx makes offsets for a merge" : "")
  }

  private static func isPooledOnZeroPoints(_ model: Llama) -> Bool {
    model.projections.contains { projection in
      guard let adapter = projection.adapter, adapter.groupSize > 1,
        case .frozen(let weight) = projection.weight
      else { return false }
      return weight.hasZeroPoints
    }
  }

  /// What is trained, and how, for a person.
  var methodLines: [(label: String, value: String)] {
    var lines = [(label: trainsModel ? "method" : "adapter", value: method)] + wholeLines
    if let groupSize {
      lines.append(
        (
          "attention",
          "in shifted groups of \(groupSize.text(of: "token")); the longest row has "
            + trainedRow.groupedText
            + (groupSize >= trainedRow ? ", so that attention is whole" : "")
        ))
    }
    if let fit { lines.append(("fits", fit)) }
    return lines
  }

  private static func wholeLines(_ model: Llama) -> [(label: String, value: String)] {
    var lines: [(label: String, value: String)] = []
    let weights = model.trainedWeights
    let rows = weights.filter(\.isRows)
    if weights.count > rows.count {
      lines.append(
        ("whole", "\((weights.count - rows.count).text(of: "tensor")) of the model's own"))
    }
    for weight in rows {
      lines.append(("tokens", "\(weight.shape[0].text(of: "row")) of the embedding"))
    }
    return lines
  }

  private var activationsText: String {
    keeping == .inputs ? "computed twice (checkpointed)" : "kept"
  }

  /// The plan for a person.
  func text(width: Int) -> String {
    var facts = Facts()
    facts.append("model", model.printable)
    for line in methodLines { facts.append(line.label, line.value) }
    facts.append("trained", "\(parameterCount.groupedText) parameters")
    facts.append("data", dataText)
    if let count = evaluationExampleCount {
      facts.append("evaluation", count.text(of: "example"))
    }
    facts.append(
      "steps", "\(stepCount.groupedText), \(stepsPerEpoch.groupedText) to go through the data")
    if let seconds, let tokensPerSecond {
      facts.append(
        "time", "about \(seconds.durationText), at \(tokensPerSecond.fixed(0)) tokens/s")
    }
    facts.append(
      "memory",
      "\((memory.base + memory.trained + memory.pass).byteText): "
        + (memory.base > 0 ? "base \(memory.base.byteText), " : "")
        + "trained \(memory.trained.byteText), a batch of \(tokensPerBatch.groupedText) tokens "
        + "\(memory.pass.byteText), activations \(activationsText)")
    return facts.text(width: width)
  }

  var dataText: String {
    var text =
      "\(examples.count.text(of: "example")), \(examples.ids.count.text(of: "token")), of which "
      + "\(examples.learntTokenCount.groupedText) are learnt; the longest has "
      + "\(examples.longest.groupedText)"
    if examples.truncatedCount > 0 {
      text +=
        "; \(examples.truncatedCount.groupedText) were cut, "
        + "by \(examples.cutTokenCount.groupedText) tokens in all"
    }
    if examples.droppedCount > 0 {
      text += "; \(examples.droppedCount.groupedText) left out, of which nothing to learn was left"
    }
    return text
  }

  /// The plan for a program.
  var json: JSON {
    .object([
      .init("model", .string(model)), .init("output", .string(output)),
      .init("modules", .number(modules)), .init("parameters", .number(parameterCount)),
      .init("wholeTensors", .number(trainedWeightCount)),
      .init("examples", .number(examples.count)), .init("tokens", .number(examples.ids.count)),
      .init("learntTokens", .number(examples.learntTokenCount)),
      .init("truncated", .number(examples.truncatedCount)),
      .init("dropped", .number(examples.droppedCount)),
      .init("evaluationExamples", evaluationExampleCount.map { .number($0) } ?? .null),
      .init("stepsPerEpoch", .number(stepsPerEpoch)), .init("steps", .number(stepCount)),
      .init("tokensPerBatch", .number(tokensPerBatch)),
      .init("groupSize", groupSize.map { .number($0) } ?? .null),
      .init("checkpointsActivations", .bool(keeping == .inputs)),
      .init("baseBytes", .number(memory.base)), .init("trainedBytes", .number(memory.trained)),
      .init("passBytes", .number(memory.pass)),
      .init("tokensPerSecond", tokensPerSecond.map { .number($0) } ?? .null),
      .init("seconds", seconds.map { .number($0) } ?? .null),
    ])
  }
}
