import Adapters
import Files
import Models
import Training

/// A method of training, as `plan` looks at it: a row of its table.
struct PlannedMethod: Sendable {
  /// What is wanted of training.
  enum Aim: String, CaseIterable, Sendable {
    case adapter, quality, ranks, int4, long, model
  }

  /// The name, of the table and of JSON.
  let name: String
  let aim: Aim
  /// How `finetune` is told, beside ranks and sizes.
  let flags: [String]
  /// How it is trained, by the rank.
  let settings: @Sendable (Ranks) -> MethodSettings
  var usesDoRA = false
  /// The codes that the base is in; nil for the numbers that it has.
  var coding: Coding?
  /// Whether moments are in 8 bits.
  var isEightBit = false
  /// Whether attention is in groups, and embeddings and norms are trained.
  var isLong = false
  /// When to choose it.
  let reason: String

  /// Codes that `quantize` makes of a base.
  struct Coding: Sendable {
    /// How the layers lie in memory then.
    let form: ModelSize.Form
    /// Its name, for the folder.
    let name: String
    /// How `quantize` is told.
    let flags: [String]

    /// NF4.
    static let nf4 = Coding(form: .nf4, name: "nf4", flags: [])
    /// INT4 in groups of 32 with an offset each (QA-LoRA, section 3.3).
    static let int4 = Coding(
      form: .groups(size: groupSize), name: "int4",
      flags: ["--type", "int4", "--group-size", String(groupSize)])
    private static let groupSize = 32
  }

  /// The ranks of adapters, and of GaLore.
  struct Ranks: Sendable {
    let adapter, galore: Int
    /// The ranks that the smallest layers have.
    let most: Int

    /// Any, where the method is asked for and not its sizes.
    fileprivate static let some = Ranks(adapter: 1, galore: 1, most: 1)
    /// Those that are left at the end, with which layers then begin.
    var left: Ranks { Ranks(adapter: adapter, galore: galore, most: adapter) }
  }

  /// All, in the order of the table.
  ///
  /// Of those of an aim the first that fits is recommended.
  static let all: [PlannedMethod] = [
    .init(
      name: "LoRA", aim: .adapter, flags: [], settings: { _ in .lora },
      reason: "To begin with. Many tasks on one base, each a small file beside it."),
    .init(
      name: "QLoRA", aim: .adapter, flags: [], settings: { _ in .lora }, coding: .nf4,
      reason: "LoRA where the weights' memory is short; the base is coded once."),
    .init(
      name: "LoRA-FA", aim: .adapter, flags: ["--method", "lora-fa"], settings: { _ in .loraFA },
      reason: "LoRA with less for gradients and moments, and on a GPU for activations."),
    .init(
      name: "DoRA", aim: .quality, flags: ["--dora"], settings: { _ in .lora }, usesDoRA: true,
      reason: "Where LoRA of a small rank is not good enough on data held out; slower."),
    .init(
      name: "QDoRA", aim: .quality, flags: ["--dora"], settings: { _ in .lora }, usesDoRA: true,
      coding: .nf4, reason: "DoRA where the weights' memory is short."),
    .init(
      name: "AdaLoRA", aim: .ranks, flags: ["--method", "adalora"],
      settings: { ranks in
        var settings = AdaLoRA.Settings()
        settings.targetRank = ranks.adapter
        settings.initialRank = min(AdaLoRAOptions.initialRank(ranks.adapter), ranks.most)
        return .adaLoRA(settings)
      }, reason: "Where nobody knows which layers need what rank; --max-steps has to suffice."),
    .init(
      name: "LoRA, ranks found", aim: .ranks, flags: ["--rank", "auto"],
      settings: { ranks in
        .rankSearch(
          .init(
            initialRank: min(2 * ranks.adapter, ranks.most),
            criterion: .all(.meanRank(Double(ranks.adapter))), stepCount: 1))
      }, reason: "The same as plain LoRA, with the ranks that its first half has asked for."),
    .init(
      name: "SHiRA", aim: .ranks, flags: ["--method", "shira"],
      settings: { .shira(.init(rank: $0.adapter, mask: .random, seed: 0)) },
      reason: "A change of high rank in few numbers; merged before it is used."),
    .init(
      name: "QA-LoRA", aim: .int4, flags: ["--method", "qa-lora"], settings: { _ in .qaLoRA },
      coding: .int4, reason: "Where a merged model in INT4 is to compute what was trained."),
    .init(
      name: "LongLoRA", aim: .long, flags: ["--long"], settings: { _ in .lora }, isLong: true,
      reason: "Long texts, whose attention takes a quarter of the time in training."),
    .init(
      name: "full", aim: .model, flags: ["--method", "full"], settings: { _ in .full },
      reason: "A model of its own, and all the memory that it takes; the yardstick."),
    .init(
      name: "full 8-bit", aim: .model,
      flags: ["--method", "full", "--optimizer", "adamw_8bit"], settings: { _ in .full },
      isEightBit: true, reason: "The same with moments of 2 bytes a number in the place of 8."),
    .init(
      name: "GaLore", aim: .model, flags: ["--method", "galore"], settings: galore,
      reason: "A change of full rank in the whole model, in less memory."),
    .init(
      name: "GaLore 8-bit", aim: .model,
      flags: ["--method", "galore", "--optimizer", "adamw_8bit"], settings: galore,
      isEightBit: true, reason: "The least memory in which all of a model is trained."),
  ]

  @Sendable private static func galore(_ ranks: Ranks) -> MethodSettings {
    var settings = GaLore.Settings()
    settings.rank = ranks.galore
    return .galore(settings)
  }

  /// Whether the model itself is trained.
  var trainsModel: Bool { aim == .model }
  /// Whether entries of the weights are trained, which are then in f32.
  var trainsEntries: Bool { if case .shira = settings(.some) { true } else { false } }
  /// Whether inputs are pooled by the groups of the base's codes.
  var isPooled: Bool { settings(.some) == .qaLoRA }

  /// How the layers of a base lie that is trained so.
  func form(of base: PlannedBase) -> ModelSize.Form {
    base.form == .numbers ? coding?.form ?? .numbers : base.form
  }

  /// The sizes of a model that is trained so.
  ///
  /// - Throws: as `ModelSize` and `AdapterDesign.size`.
  func size(
    _ configuration: LlamaConfiguration, _ base: PlannedBase, _ ranks: Ranks
  ) throws(PeftoolError) -> ModelSize {
    var design = AdapterDesign()
    design.rank = ranks.adapter
    design.usesDoRA = usesDoRA
    design.method = settings(ranks)
    if case .rankSearch(let own) = design.method { design.rank = own.initialRank }
    if isLong { design.targets = try TargetModules(LongTextOptions.targets) }
    let training: TrainedWeights =
      if trainsModel {
        .wholeModel(sharingGradients: settings(ranks) != .full)
      } else if trainsEntries {
        .layers(configuration.linearLayers.filter { $0 != TrainedWeights.head })
      } else {
        TrainedWeights(modules: isLong ? LongTextOptions.modules : [], tokens: [])
      }
    let form = form(of: base)
    return try ModelSize(
      planning: configuration, dtype: base.dtype, form: form, training: training
    ) { (layer) throws(PeftoolError) in
      try trainsModel || trainsEntries
        ? nil : design.size(of: layer, groupSize: form.groupSize(of: layer.inputs))
    }
  }
}

extension ModelSize.Form {
  /// The inputs of a group, of so many; nil of what has none.
  fileprivate func groupSize(of inputs: Int) -> Int? {
    if case .groups(let size) = self { size ?? inputs } else { nil }
  }
}
