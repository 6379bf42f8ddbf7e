import Checkpoints
import Files
import JSON
import Tensors

/// PEFT's adapters: `adapter_config.json` and `adapter_model.safetensors`.
enum PEFTAdapter {
  /// What an adapter is read for.
  enum Purpose {
    /// Another format, which has no biases of B.
    case format
    /// Sums and decompositions.
    case arithmetic
    /// Figures of the updates, whatever else the adapter holds.
    case statistics

    /// Why something is refused.
    fileprivate var limit: String {
      switch self {
      case .format: "which no other format has"
      case .arithmetic, .statistics: "which is no low-rank update"
      }
    }
  }

  /// Reads an adapter whose every tensor belongs to a low-rank pair.
  ///
  /// - Throws: as `Adapter`, and `unsupported` for what the purpose has no place for.
  static func read(
    _ path: String, _ hints: AdapterFormat.Hints, for purpose: Purpose = .format
  ) throws(PeftoolError) -> LowRankAdapter {
    if purpose != .format, let adapter = try ProductAdapter.read(path) { return adapter }
    let adapter = try Adapter(opening: path)
    do throws(PeftoolError) {
      try check(adapter.configuration, purpose)
    } catch {
      throw error.at(path: adapter.checkpoint.adapterConfigPath)
    }
    var modules: [LowRankAdapter.Module] = []
    var notes: [String] = []
    var saved: [LowRankAdapter.Saved] = []
    for module in adapter.modules {
      if purpose == .statistics, module.parts.keys.allSatisfy(\.isWholeValue) { continue }
      if try isSavedEmbedding(module, of: adapter, base: hints.base, purpose) {
        notes.append(
          "\(module.path.printable) is saved whole, the same as in the base: left out")
        continue
      }
      if purpose == .arithmetic, module.parts.keys.allSatisfy(\.isOwn) {
        saved += saves(module, of: adapter)
        continue
      }
      if adapter.configuration.method == .adaLoRA, try hasNoRank(module, of: adapter) { continue }
      modules.append(try pair(module, of: adapter, purpose))
    }
    var result = try LowRankAdapter(modules)
    if purpose != .format { try result.checkRanks() }
    guard result.usesDoRA == adapter.configuration.usesDoRA else {
      throw PeftoolError(
        .damaged,
        "use_dora is \(adapter.configuration.usesDoRA), but there "
          + (result.usesDoRA ? "are magnitudes" : "is no magnitude"), path: path)
    }
    result.saved = saved
    result.ensuresWeightTying =
      adapter.configuration.ensuresWeightTying
      && saved.contains { BaseModel.isOutputEmbedding($0.path) }
    result.baseName = adapter.configuration.baseName
    result.positions = StretchedPositions(try adapter.checkpoint.modelConfig)
    if case .string(let task) = try adapter.checkpoint.adapterConfig?["task_type"] {
      result.task = task
    }
    result.notes = notes + adapter.ignored(for: "this")
    return result
  }

  private static let wayOut = "'peftool merge' folds it into its base"

  private static func check(
    _ configuration: AdapterConfiguration, _ purpose: Purpose
  ) throws(PeftoolError) {
    func refuse(_ what: String) -> PeftoolError {
      PeftoolError(.unsupported, "\(what), \(purpose.limit); \(wayOut)")
    }
    let isAdaLoRA = configuration.method == .adaLoRA && purpose != .format
    guard configuration.method == .lora || isAdaLoRA else {
      throw refuse("is of \(configuration.method.name)")
    }
    if configuration.pooledGroupSize != nil {
      throw PeftoolError(
        .unsupported, "is of QA-LoRA, whose A sees means of groups of inputs; \(wayOut)")
    }
    if let start = configuration.baseMutation {
      throw PeftoolError(
        .unsupported,
        "init_lora_weights is \"\(start.printable)\", which changed the base when training began; "
          + "save_pretrained with path_initial_model_for_weight_conversion makes an adapter for "
          + "the base as it was")
    }
    if !configuration.layerReplication.isEmpty { throw refuse("has layer_replication") }
    if !configuration.targetParameters.isEmpty { throw refuse("has target_parameters") }
    // Modules have biases then that are neither saved whole nor have pairs.
    if purpose == .arithmetic, configuration.bias == "all" { throw refuse("has bias \"all\"") }
  }

  private static func pair(
    _ module: Adapter.Module, of adapter: Adapter, _ purpose: Purpose
  ) throws(PeftoolError) -> LowRankAdapter.Module {
    let source = adapter.checkpoint.source
    var factors = Set<AdapterKey.Part>([.loraA, .loraB, .embeddingA, .embeddingB, .magnitude])
    if purpose != .format { factors.formUnion([.loraBias, .loraE]) }
    // PEFT's MultiheadAttention adds the change of what it wraps twice.
    let isNested = module.depth > 0 || module.path.contains(".base_layer.")
    for (part, tensor) in module.parts.sorted(by: { $0.value.name.precedesByBytes($1.value.name) })
    where isNested || !factors.contains(part) {
      throw StoredTensor(tensor, in: source).at(
        PeftoolError(
          .unsupported,
          "is no part of a low-rank pair, \(purpose.limit); \(wayOut)"))
    }
    let isEmbedding = module.parts[.embeddingA] != nil || module.parts[.embeddingB] != nil
    let extras = [AdapterKey.Part.magnitude, .loraBias, .loraE].compactMap { module.parts[$0] }
    guard let a = module.parts[isEmbedding ? .embeddingA : .loraA],
      let b = module.parts[isEmbedding ? .embeddingB : .loraB],
      module.parts.count == 2 + extras.count
    else {
      throw PeftoolError(
        .damaged, "module \(module.path.printable) has not both of a pair", path: source.path)
    }
    let configuration = adapter.configuration
    if isEmbedding, configuration.ensuresWeightTying {
      throw PeftoolError(
        .unsupported,
        "ensure_weight_tying makes the change of \(module.path.printable) at both ends, "
          + "\(purpose.limit); \(wayOut)", path: source.path)
    }
    var factorA = AdapterTensor(a, in: source)
    if let e = module.parts[.loraE].map({ StoredTensor($0, in: source) }) {
      factorA = try factorA.multipliedRows(by: e)
    }
    var pair = try LowRankAdapter.Module(
      module.path, kind: isEmbedding ? .embedding : nil, a: factorA,
      b: AdapterTensor(b, in: source),
      magnitude: module.parts[.magnitude].map { AdapterTensor($0, in: source) },
      bias: module.parts[.loraBias].map { AdapterTensor($0, in: source) }
    ) { (rank) throws(PeftoolError) in
      var expected = try configuration.rank(of: module.path)
      if let kept = configuration.keptRank(of: module.path) { expected = kept }
      guard rank == expected else {
        throw StoredTensor(a, in: source).at(
          PeftoolError(.different, "has rank \(rank), the configuration says \(expected)"))
      }
      let scaling = try configuration.scaling(of: module.path, keptRank: rank)
      // Without rsLoRA the configuration's own number, to which no rounding is added.
      let alpha =
        configuration.usesRSLoRA || configuration.method == .adaLoRA
        ? scaling * Double(rank)
        : try configuration.alphaPatterns.firstValue(for: module.path) ?? configuration.alpha
      return (scaling, alpha)
    }
    pair.isFanInFanOut = configuration.isFanInFanOut
    pair.storedNames = module.parts.values.map(\.name)
    return pair
  }

  /// Whether AdaLoRA has taken all ranks of a module away.
  ///
  /// - Throws: `damaged` where it has a part that is not empty.
  private static func hasNoRank(
    _ module: Adapter.Module, of adapter: Adapter
  ) throws(PeftoolError) -> Bool {
    guard let a = module.parts[.loraA], a.shape.first == 0 else { return false }
    for (_, tensor) in module.parts where tensor.elementCount > 0 {
      throw adapter.stored(tensor).at(
        PeftoolError(.damaged, "is not empty, as '\(a.name.printable)' is"))
    }
    return true
  }

  /// The parameters that a module saves whole, in the order of their names.
  private static func saves(
    _ module: Adapter.Module, of adapter: Adapter
  ) -> [LowRankAdapter.Saved] {
    let source = adapter.checkpoint.source
    return module.parts.sorted { $0.value.name.precedesByBytes($1.value.name) }
      .compactMap { part, tensor in
        guard case .own(let parameter) = part else { return nil }
        return LowRankAdapter.Saved(
          path: module.path, parameter: parameter, tensor: AdapterTensor(tensor, in: source),
          isBias: module.depth > 0)
      }
  }

  /// Whether a module is an embedding that PEFT saved whole beside the pair, unchanged.
  ///
  /// - Throws: `unsupported` where no base tells, `different` where it is not the base's.
  private static func isSavedEmbedding(
    _ module: Adapter.Module, of adapter: Adapter, base: BaseModel?, _ purpose: Purpose
  ) throws(PeftoolError) -> Bool {
    guard module.parts.count == 1, let info = module.parts[.own("weight")], module.depth == 1 else {
      return false
    }
    let stored = adapter.stored(info)
    guard let base else {
      throw stored.at(
        PeftoolError(
          .unsupported,
          "is an embedding saved whole, \(purpose.limit); --base MODEL shows whether it is the "
            + "base's, and then it is left out"))
    }
    guard let own = ModuleNames(base).tensor(module.path, "weight")?.stored,
      try stored.isSame(as: own)
    else {
      throw stored.at(
        PeftoolError(
          .different,
          "is saved whole and not the base's embedding, \(purpose.limit); \(wayOut)"))
    }
    return true
  }

  /// The files that PEFT loads.
  static func files(for adapter: LowRankAdapter) -> AdapterFiles {
    var items: [AdapterFiles.Item] = []
    for module in adapter.modules {
      let path = AdapterKey.prefix + module.path
      let isEmbedding = module.kind == .embedding
      items.append(.init(path + (isEmbedding ? ".lora_embedding_A" : ".lora_A.weight"), module.a))
      items.append(.init(path + (isEmbedding ? ".lora_embedding_B" : ".lora_B.weight"), module.b))
      if let magnitude = module.magnitude {
        let shape =
          module.kind == .convolution
          ? [1, module.outputCount] + Array(repeating: 1, count: module.a.shape.count - 2)
          : [module.outputCount]
        items.append(.init(path + ".lora_magnitude_vector", magnitude.reshaped(shape)))
      }
      if let bias = module.bias { items.append(.init(path + ".lora_B.bias", bias)) }
    }
    var files = AdapterFiles(
      folder: items + adapter.saved.map(item(for:)), fileName: "adapter_model.safetensors",
      metadata: [("format", "pt")],
      configuration: configuration(of: adapter), indent: 2)
    files.positions = adapter.positions
    return files
  }

  /// The tensor of a parameter that is saved whole.
  static func item(for saved: LowRankAdapter.Saved) -> AdapterFiles.Item {
    let path = AdapterKey.prefix + saved.path + (saved.isBias ? ".base_layer." : ".")
    return .init(path + saved.parameter, saved.tensor)
  }

  /// Every key that PEFT 0.21.2 saves.
  private static func configuration(of adapter: LowRankAdapter) -> JSON {
    let modules = adapter.modules
    let rank = modules.map(\.rank).mostFrequent ?? 8
    let alpha = modules.map(\.alpha).mostFrequent ?? 8
    func pattern(_ values: [(String, JSON)]) -> JSON {
      .object(values.map { .init("^" + $0.0.escapedForRegularExpressions, $0.1) })
    }
    let ranks = modules.filter { $0.rank != rank }.map { ($0.path, JSON.number($0.rank)) }
    let alphas = modules.filter { $0.alpha != alpha }.map {
      ($0.path, PEFTConfiguration.number($0.alpha))
    }
    let targets = modules.map(\.path).sorted { $0.precedesByBytes($1) }
    let string: (String?) -> JSON = { $0.map(JSON.string) ?? .null }
    let whole = Set(adapter.saved.filter { !$0.isBias }.map { ExactName($0.path) })
      .map(\.string).sorted { $0.precedesByBytes($1) }
    let hasOwnBiases = adapter.saved.contains(where: \.isBias)
    return PEFTConfiguration.json([
      "alpha_pattern": pattern(alphas), "base_model_name_or_path": string(adapter.baseName),
      "bias": .string(hasOwnBiases ? "lora_only" : "none"),
      "ensure_weight_tying": .bool(adapter.ensuresWeightTying),
      "lora_alpha": PEFTConfiguration.number(alpha),
      "lora_bias": .bool(modules.contains { $0.bias != nil }),
      "modules_to_save": whole.isEmpty ? .null : .array(whole.map(JSON.string)),
      "r": .number(rank), "rank_pattern": pattern(ranks),
      "target_modules": .array(targets.map(JSON.string)), "task_type": string(adapter.task),
      "use_dora": .bool(adapter.usesDoRA),
    ])
  }
}

extension AdapterKey.Part {
  /// Whether it is the full values of a parameter.
  fileprivate var isOwn: Bool {
    if case .own = self { true } else { false }
  }

  /// Whether it is the full values of a parameter or of some of its rows.
  fileprivate var isWholeValue: Bool {
    switch self {
    case .own, .tokens: true
    default: false
    }
  }
}

extension String {
  /// A regular expression that matches this text alone.
  fileprivate var escapedForRegularExpressions: String {
    reduce(into: "") { text, character in
      if !character.isLetter, !character.isNumber, character != "_" { text.append("\\") }
      text.append(character)
    }
  }
}

extension Array where Element: Hashable {
  /// The value that is there most often, of several the first.
  var mostFrequent: Element? {
    let counts = reduce(into: [Element: Int]()) { $0[$1, default: 0] += 1 }
    let largest = counts.values.max()
    return first { counts[$0] == largest }
  }
}
