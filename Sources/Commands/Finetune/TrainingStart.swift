import Adapters
import Checkpoints
import Files
import JSON
import Models
import Training

/// What training begins with: an adapter that is made for it, one that there is, or the model alone.
enum TrainingStart {
  /// The model is trained itself.
  case model(sharesGradients: Bool)
  case new(AdapterDesign)
  /// A sparse change of the layers' weights.
  case sparse(AdapterDesign)
  case existing(ModelAdapters, configuration: JSON, modulesToSave: [String], path: String)

  /// Opens the adapter that the options name, or takes their design.
  ///
  /// - Throws: `unsupported` where the adapter is not one of LoRA or DoRA as PEFT saves them; as
  ///   `ModelAdapters`.
  init(
    _ command: FinetuneCommand, _ method: MethodSettings, for checkpoint: Checkpoint
  ) throws {
    if method.trainsModel {
      // Of several batches a step gradients are added up, each in its own place.
      self = .model(sharesGradients: method != .full && command.training.accumulation == 1)
      return
    }
    guard let path = command.adapter.existing else {
      let design = try command.adapter.design(
        method, seed: command.training.seed,
        targets: command.longTexts.long ? LongTextOptions.targets : TargetModules.allLinearName)
      self = command.adapter.method == .shira ? .sparse(design) : .new(design)
      return
    }
    let adapter = try Adapter(opening: path)
    guard let configPath = adapter.checkpoint.adapterConfigPath,
      adapter.configuration.method == .lora
    else {
      throw PeftoolError(
        .unsupported,
        "is of \(adapter.configuration.method.name), expected LoRA or DoRA as PEFT saves them",
        path: path)
    }
    let configuration = try JSON(opening: configPath)
    var dropout = command.adapter.dropout ?? 0
    if command.adapter.dropout == nil, let saved = configuration["lora_dropout"] {
      dropout = try saved.double(named: "lora_dropout")
      guard dropout >= 0, dropout < 1 else {
        throw saved.unfit("lora_dropout", "a share from 0 to less than 1").at(path: configPath)
      }
    }
    let pairs = try ModelAdapters(
      [adapter], weights: [1], for: checkpoint, isTrained: true, dropout: dropout)
    try adapter.checkpoint.source.verifyUnchanged()
    self = .existing(
      pairs,
      configuration: try configuration.replacing([
        ("lora_dropout", .number(dropout)),
        ("base_model_name_or_path", .string(command.model)), ("inference_mode", .bool(true)),
      ]), modulesToSave: adapter.configuration.modulesToSave, path: path)
  }

  /// What the adapter has in the place of the model's own tensors.
  var own: OwnTensors {
    if case .existing(let pairs, _, _, _) = self { pairs.own } else { .none }
  }

  /// The model's own weights that are trained: those that the adapter has, and what is asked for.
  ///
  /// - Throws: `unsupported` where the adapter has tensors of its own that would be left as they are
  ///   and out of what is saved.
  func trainedWeights(
    besides weights: TrainedWeights, of configuration: LlamaConfiguration
  ) throws(PeftoolError) -> TrainedWeights {
    if case .sparse(let design) = self {
      let chosen = try design.targets.chosen(of: configuration.linearLayers)
      guard !chosen.contains(TrainedWeights.head) else {
        throw PeftoolError(
          .unsupported, "gets no sparse change: leave it out of --target-modules",
          tensor: TrainedWeights.head + ".weight")
      }
      return .layers(chosen)
    }
    if case .model(let sharesGradients) = self {
      return .wholeModel(sharingGradients: sharesGradients)
    }
    guard case .existing(let pairs, _, let modules, let path) = self else { return weights }
    let all = TrainedWeights(
      modules: weights.modules + modules.filter { !weights.modules.contains($0) },
      tokens: pairs.own.tokens + weights.tokens)
    for name in pairs.own.names {
      guard let dot = name.lastIndex(of: "."), all.contains(String(name[..<dot])) else {
        throw PeftoolError(
          .unsupported,
          "takes the place of '\(name.printable)', which its modules_to_save does not name: "
            + "--modules-to-save would train it, and nothing else would keep it", path: path)
      }
    }
    return all
  }

  /// The adapter of a layer.
  ///
  /// - Throws: as `AdapterDesign.adapter`.
  func adapter(
    of module: String, _ weight: FrozenWeight, original: FrozenWeight
  ) throws(PeftoolError) -> LoRA? {
    switch self {
    case .model, .sparse: nil
    case .new(let design): try design.adapter(of: module, weight, original: original)
    case .existing(let pairs, _, _, _): pairs.pair(of: module)
    }
  }

  /// Refuses a design whose names and patterns fit none of a model's layers, before the model is
  /// read.
  ///
  /// - Parameter weights: what is trained besides.
  /// - Throws: `different` with what fits nothing; as `AdapterDesign.adapter`.
  func check(
    _ configuration: LlamaConfiguration, _ weights: TrainedWeights, path: String
  ) throws(PeftoolError) {
    let design: AdapterDesign
    switch self {
    case .model, .existing: return
    case .new(let own), .sparse(let own): design = own
    }
    let modules = configuration.linearLayers
    if let name = design.targets.unmatched(in: modules).first {
      throw PeftoolError(
        .different,
        "has no linear layer '\(name.printable)' (--target-modules), but "
          + TargetModules.lastNames(of: modules).joined(separator: ", "), path: path)
    }
    let chosen = try design.targets.chosen(of: modules)
    guard !chosen.isEmpty else {
      throw PeftoolError(
        .different,
        "--target-modules matches none of its \(modules.count) linear layers: "
          + TargetModules.lastNames(of: modules).joined(separator: ", "),
        path: path)
    }
    for key in design.rankPatterns.map(\.key) + design.alphaPatterns.map(\.key) {
      let pattern = try ModulePattern(key: key, value: 0)
      var isUsed = false
      for module in chosen where !weights.takesPlaceOfAdapter(module) {
        if try pattern.matches(module) { isUsed = true }
      }
      guard isUsed else {
        throw PeftoolError(
          .different, "the pattern '\(key.printable)' matches none of the layers with an adapter",
          path: path)
      }
    }
  }

  /// Refuses an adapter that does not fit the model as a whole.
  ///
  /// - Parameter weights: what is trained besides.
  /// - Throws: `different` where names fit no layer; as `ModelAdapters.checkAllUsed`; `unsupported`
  ///   for adapters of the output embedding that cannot be trained.
  func check(
    _ model: Llama, _ weights: TrainedWeights, path: String
  ) throws(PeftoolError) {
    if let head = model.adapters.first(where: { $0.module == TrainedWeights.head }),
      head.adapter.magnitude != nil
    {
      throw PeftoolError(
        .unsupported, "has a DoRA adapter of \(head.module), whose gradient takes all logits",
        path: existingPath ?? path)
    }
    switch self {
    case .model: break
    case .sparse(let design): try checkSparse(design, model, path: path)
    case .new(let design):
      try Self.checkGroups(model, path: path)
      for projection in model.projections
      where projection.adapter == nil && !weights.contains(projection.name) {
        guard try design.targets.contains(projection.name) else { continue }
        throw PeftoolError(
          .unsupported,
          "'\(projection.name)' is the input embedding too, which is trained whole: it cannot have "
            + "an adapter besides (--target-modules)", path: path)
      }
      guard !model.adapters.isEmpty else {
        throw PeftoolError(
          .different,
          "all layers of --target-modules are trained whole (--modules-to-save): none is left for "
            + "an adapter", path: path)
      }
    case .existing(let pairs, _, _, let path):
      try pairs.checkAllUsed(by: model)
      for (_, adapter) in model.adapters {
        guard let magnitude = adapter.magnitude, magnitude.values.values.contains(0)
        else { continue }
        throw PeftoolError(
          .unsupported, "has a magnitude of 0, from which no gradient is found",
          tensor: magnitude.name, path: path)
      }
      guard !model.adapters.isEmpty else {
        throw PeftoolError(.different, "changes no linear layer", path: path)
      }
    }
  }

  /// Refuses a base whose layers are in groups of several sizes, for which `adapter_config.json` has
  /// one number.
  private static func checkGroups(_ model: Llama, path: String) throws(PeftoolError) {
    guard let (first, adapter) = model.adapters.first,
      let other = model.adapters.first(where: { $0.adapter.groupSize != adapter.groupSize })
    else { return }
    throw PeftoolError(
      .unsupported,
      "is in groups of \(other.adapter.groupSize) inputs, '\(first)' in groups of "
        + "\(adapter.groupSize), and QA-LoRA has one size for all: leave some out of "
        + "--target-modules", tensor: other.module + ".weight", path: path)
  }

  /// The `adapter_config.json` of what is saved; nil where there is no adapter.
  ///
  /// - Parameter others: values of further keys.
  func json(
    of model: Llama, base: String, others: [String: JSON]
  ) throws(PeftoolError) -> JSON? {
    switch self {
    case .model: nil
    case .sparse(let design):
      design.json(modules: model.trainedWeights.map(\.modulePath), base: base)
    case .new(let design):
      design.json(
        modules: model.adapters.map(\.module), base: base,
        groupSize: design.method == .qaLoRA ? model.adapters.first?.adapter.groupSize : nil,
        others: others)
    case .existing(_, let configuration, _, _):
      try configuration.replacing(others.sorted { $0.key < $1.key })
    }
  }

  /// The path of an adapter that there is.
  private var existingPath: String? {
    if case .existing(_, _, _, let path) = self { path } else { nil }
  }

  /// Refuses layers that have fewer entries than are to be trained.
  ///
  /// - Throws: `different`.
  private func checkSparse(
    _ design: AdapterDesign, _ model: Llama, path: String
  ) throws(PeftoolError) {
    for weight in model.trainedWeights {
      let (outputs, inputs) = (weight.shape[0], weight.shape[1])
      let most = outputs * inputs / (outputs + inputs)
      guard design.rank > most else { continue }
      throw PeftoolError(
        .different,
        "has \(outputs * inputs) entries, and --rank \(design.rank) asks for "
          + "\(design.rank)·\(outputs + inputs) of them: \(most) at most",
        tensor: weight.modulePath + ".weight", path: path)
    }
  }
}

extension TrainedWeight {
  /// The path of the module that has it.
  fileprivate var modulePath: String {
    String(parameter.name.dropFirst(AdapterKey.prefix.count).dropLast(".weight".count))
  }
}
