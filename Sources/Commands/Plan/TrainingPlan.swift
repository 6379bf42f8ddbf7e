import Files
import JSON
import Models
import Tensors
import Training

/// What each method takes: the arithmetic of `plan`, which is that of `finetune --dry-run`.
struct TrainingPlan {
  let base: PlannedBase
  let settings: Settings
  let runs: [PlannedRun]
  /// The methods that are none for the base, and why: what follows its name.
  let leftOut: [(method: PlannedMethod, reason: String)]
  /// The place of the one that is recommended; nil where none fits.
  let recommended: Int?

  /// What is asked.
  struct Settings {
    var length: Int
    var rows: Int
    var ranks: PlannedMethod.Ranks
    var threads: Int
    /// The bytes that there are; nil where nobody knows.
    var memory: Int?
    var checkpointing = TrainingOptions.Checkpointing.auto
    var aim = PlannedMethod.Aim.adapter
    /// The steps of going through the data; nil where they are not known.
    var stepsPerEpoch: Int?
    /// How fast the machine is; nil where that was not measured.
    var rates: StepCost.Rates?
    /// Whether the memory is a GPU's.
    var isOnGPU = false

    var tokens: Int { rows * length }
  }

  /// The program, its libraries and buffers, as a run shows that trains next to nothing.
  static let programByteCount = 24_000_000

  /// Works it out.
  ///
  /// - Throws: `unsupported` for a batch that nobody computes, and where the base is such that no
  ///   method is left for the aim; `different` where a rank is more than layers have.
  init(_ base: PlannedBase, _ settings: Settings) throws(PeftoolError) {
    self.base = base
    self.settings = settings
    try Self.check(base, settings)
    var methods: [PlannedMethod] = []
    var leftOut: [(method: PlannedMethod, reason: String)] = []
    // Of codes a row that differs by being without them would be the same.
    for method in PlannedMethod.all
    where base.form == .numbers || method.coding != nil || !Self.hasCodedTwin(method) {
      if let reason = Self.obstacle(to: method, base, isOnGPU: settings.isOnGPU) {
        leftOut.append((method, reason))
      } else {
        methods.append(method)
      }
    }
    self.leftOut = leftOut
    if !methods.contains(where: { $0.aim == settings.aim }),
      let reason = leftOut.first(where: { $0.method.aim == settings.aim })?.reason
    {
      throw PeftoolError(
        .unsupported, "\(reason) (--aim \(settings.aim.rawValue))", path: base.path)
    }
    var runs: [PlannedRun] = []
    for method in methods { runs.append(try Self.run(method, base, settings)) }
    self.runs = runs
    let chosen = runs.indices.filter {
      runs[$0].method.aim == settings.aim && runs[$0].fits != false
    }
    // What is computed twice takes time: another method comes first.
    recommended = chosen.first { runs[$0].keeping == .everything } ?? chosen.first
  }

  /// Why a method is none for a base: what follows its name; nil where it is one.
  private static func obstacle(
    to method: PlannedMethod, _ base: PlannedBase, isOnGPU: Bool
  ) -> String? {
    if method.isLong {
      var options = LongTextOptions()
      options.long = true
      do throws(PeftoolError) {
        try options.check(base.configuration, path: base.path)
      } catch {
        return error.reason
      }
    }
    if method.isPooled, case .impossible(let reason) = base.pooling { return reason }
    if base.form != .numbers, method.trainsModel || method.trainsEntries {
      return "is quantized, and codes cannot be trained; 'peftool dequantize' decodes it"
    }
    return isOnGPU && method.trainsEntries
      ? "takes bytes on a GPU that nobody has published" : nil
  }

  /// Whether another row is the same but for a base in codes.
  private static func hasCodedTwin(_ method: PlannedMethod) -> Bool {
    PlannedMethod.all.contains {
      $0.coding != nil && $0.aim == method.aim && $0.flags == method.flags
    }
  }

  /// The tokens of the largest batch whose bytes can be counted.
  private static func maximumTokenCount(_ configuration: LlamaConfiguration) -> Int {
    let widths = 4 * (configuration.hiddenSize + configuration.intermediateSize)
    let heads = 6 * configuration.headCount * configuration.headSize
    let layers = Double(configuration.layerCount) * Double(widths + heads)
    let most = 0x1p60 / (8 * (layers + 2 * Double(configuration.vocabularySize)))
    return min(FinetunePlan.maximumBatchTokenCount, Int(most))
  }

  private static func check(_ base: PlannedBase, _ settings: Settings) throws(PeftoolError) {
    let configuration = base.configuration
    guard settings.length <= configuration.contextLength else {
      throw PeftoolError(
        .different,
        "--max-length is \(settings.length), the model has "
          + "\(configuration.contextLength) positions, which --rope-scaling of finetune stretches",
        path: base.path)
    }
    let (rank, most) = (settings.ranks.adapter, settings.ranks.most)
    guard rank <= most else {
      throw PeftoolError(
        .different, "its smallest layers have \(most) ranks, and --rank asks for \(rank)",
        path: base.path)
    }
    guard settings.rows <= maximumTokenCount(configuration) / settings.length else {
      throw PeftoolError(
        .unsupported,
        "a batch of \(settings.rows) texts of \(settings.length) tokens is more than peftool "
          + "computes: a smaller --batch-size or --max-length makes fewer", path: base.path)
    }
  }

  private static func run(
    _ method: PlannedMethod, _ base: PlannedBase, _ settings: Settings
  ) throws(PeftoolError) -> PlannedRun {
    let model, left: ModelSize
    do throws(PeftoolError) {
      model = try method.size(base.configuration, base, settings.ranks)
      left = try method.size(base.configuration, base, settings.ranks.left)
    } catch {
      throw error.at(path: base.path)
    }
    let estimate: any MemoryEstimate =
      settings.isOnGPU
      ? GPUMemory(method, model, settings, form: method.form(of: base))
      : ProcessorMemory(method, model, settings)
    let (keeping, memory) = pass(settings.rows, estimate, settings)
    let methodSettings = method.settings(settings.ranks)
    let added = left.adapters.reduce(0.0) {
      $0 + Double($1.rank) * Double($1.inputs + $1.outputs)
    }
    let cost = StepCost(
      model, methodSettings, isEightBit: method.isEightBit, length: settings.length,
      keeping: keeping, isGrouped: method.isLong)
    let numbers = methodSettings.trainedCount(model)
    var run = PlannedRun(
      method: method, parameterCount: numbers, memory: memory, keeping: keeping,
      fits: settings.memory.map { memory.total <= $0 },
      largestBatch: settings.memory.map {
        largestBatch(
          estimate, settings, limit: $0,
          most: maximumTokenCount(base.configuration) / settings.length)
      },
      outputByteCount: method.trainsModel
        ? numbers * base.dtype.bitCount / 8
        : method.trainsEntries ? 3 * 4 * numbers : 4 * savedCount(left),
      isMerged: !method.isPooled || base.pooling == .merged,
      isDecoded: base.form != .numbers && !method.isPooled && !method.trainsModel,
      addedShare: added
        / Double(base.configuration.layerElementCount + base.configuration.tableElementCount))
    if let rates = settings.rates {
      let step = cost.seconds(steps: 1, tokens: settings.tokens, rates)
      run.seconds.step = step - cost.subspaceOperations / rates.operations
      run.seconds.epoch = settings.stepsPerEpoch.map {
        cost.seconds(steps: $0, tokens: settings.tokens, rates)
      }
    }
    return run
  }

  /// The numbers that are saved of an adapter, what is frozen of it with them, and a table of both ends
  /// twice, as PEFT does.
  private static func savedCount(_ model: ModelSize) -> Int {
    let frozen = model.adapters.reduce(0) { $0 + ($1.trainsA ? 0 : $1.rank * $1.inputs) }
    let configuration = model.configuration
    let copies =
      configuration.isTied && model.trainedWeights.contains(where: \.isHead)
      ? configuration.tableElementCount : 0
    return model.parameterCounts.reduce(0, +) + frozen + copies
  }

  /// What is kept of a batch of so many rows, and its memory.
  private static func pass(
    _ rows: Int, _ estimate: any MemoryEstimate, _ settings: Settings
  ) -> (keeping: LossPass.Keeping, memory: PlannedRun.Memory) {
    let all = estimate.memory(rows: rows, keeping: .everything)
    let keeping = settings.checkpointing.keeping(
      free: settings.memory.map { $0 - (all.total - all.activations) }, all.activations)
    return (keeping, estimate.memory(rows: rows, keeping: keeping))
  }

  /// The rows of the largest batch that there is memory for, whatever is kept of that.
  private static func largestBatch(
    _ estimate: any MemoryEstimate, _ settings: Settings, limit: Int, most: Int
  ) -> Int {
    var (low, high) = (0, most)
    while low < high {
      let middle = (low + high + 1) / 2
      if pass(middle, estimate, settings).memory.total <= limit {
        low = middle
      } else {
        high = middle - 1
      }
    }
    return low
  }
}

/// The memory of a method, by the rows of a batch.
protocol MemoryEstimate {
  /// All, by its parts.
  func memory(rows: Int, keeping: LossPass.Keeping) -> PlannedRun.Memory
}

/// The memory that `finetune` takes.
struct ProcessorMemory: MemoryEstimate {
  private let model: ModelSize
  private let size: TrainingSize
  private let settings: TrainingPlan.Settings
  private let rest: Int

  init(_ method: PlannedMethod, _ model: ModelSize, _ settings: TrainingPlan.Settings) {
    self.model = model
    self.settings = settings
    let own = method.settings(settings.ranks)
    size = TrainingSize(model, own, isEightBit: method.isEightBit, threads: settings.threads)
    rest =
      TrainingPlan.programByteCount + own.scratchByteCount(model, threads: settings.threads)
  }

  func memory(rows: Int, keeping: LossPass.Keeping) -> PlannedRun.Memory {
    .init(
      weights: size.frozen + size.trained,
      activations: LossPass.byteCount(
        model, tokens: rows * settings.length, longest: settings.length, keeping: keeping,
        threads: settings.threads),
      gradients: size.gradients, optimizer: size.moments + size.method, rest: rest)
  }
}
