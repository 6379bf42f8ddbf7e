package import Files
package import JSON

/// What an `adapter_config.json` says, as far as it bears on the weights.
///
/// Spelt as in PEFT 0.21 (`LoraConfig`, `AdaLoraConfig`, `IA3Config`, `ShiraConfig`,
/// `TrainableTokensConfig`).
/// Fields that only training needs are not read; those that make weights mean something else are,
/// and refused where peftool has no formula for them.
package struct AdapterConfiguration: Sendable {
  /// The method, from `peft_type`.
  package let method: Method
  /// The rank: `r`, for AdaLoRA `init_r`, 0 for methods without one; of SHiRA, whose changes have
  /// any, r·(in + out) is the number of entries.
  package let rank: Int
  /// `lora_alpha`.
  package let alpha: Double
  /// `use_rslora`: the scaling is alpha/√r.
  package let usesRSLoRA: Bool
  /// `use_dora`.
  package let usesDoRA: Bool
  /// `rank_pattern`, in the order of the file; empty for AdaLoRA and SHiRA.
  package let rankPatterns: [ModulePattern<Int>]
  /// `alpha_pattern`, in the order of the file; AdaLoRA has it, but does not look into it.
  package let alphaPatterns: [ModulePattern<Double>]
  /// AdaLoRA's `rank_pattern`: how many ranks each module has kept.
  private let keptRanks: [ExactName: Int]
  /// `qalora_group_size` where `use_qalora` is set: the inputs whose mean a column of A sees.
  package let pooledGroupSize: Int?
  /// `fan_in_fan_out`: a hint, and often wrong (PEFT writes the last module's).
  package let isFanInFanOut: Bool
  /// `lora_bias`.
  package let hasLoRABias: Bool
  /// `bias`: `none`, `all` or `lora_only`.
  package let bias: String
  /// `target_modules` in the order of the file; a single regular expression is one entry.
  package let targetModules: [String]
  /// `modules_to_save`.
  package let modulesToSave: [String]
  /// `target_parameters`.
  package let targetParameters: [String]
  /// `trainable_token_indices` or `token_indices`.
  package let tokens: TokenIndices?
  /// `ensure_weight_tying`.
  package let ensuresWeightTying: Bool
  /// `layer_replication`: ranges of layers, one after the other the layers of the new model.
  package let layerReplication: [Range<Int>]
  /// `init_lora_weights`, where it changed the base (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA); nil for
  /// the others and for an adapter that was converted when it was saved.
  package let baseMutation: String?
  /// `base_model_name_or_path`.
  package let baseName: String?

  /// Which rows of which embedding an adapter replaces.
  package enum TokenIndices: Equatable, Sendable {
    /// Rows of the input embedding.
    case inputEmbedding([Int])
    /// Rows by module name.
    case modules([String: [Int]])
  }

  /// Reads a configuration.
  ///
  /// - Throws: `damaged` where a field has not its type or range, `unsupported` for methods and
  ///   variants that peftool has no formula for.
  package init(_ json: JSON) throws(PeftoolError) {
    guard case .object = json else { throw json.unfit("the configuration", "an object") }
    let fields = Fields(json)
    let type = try json.string(at: "peft_type")
    guard let method = Method(rawValue: type) else {
      let known = Method.allCases.map(\.rawValue).joined(separator: ", ")
      let way =
        ProductAdapter.Kind(rawValue: type) == nil
        ? "" : "; 'peftool convert --to lora' makes LoRA of it"
      throw PeftoolError(
        .unsupported, "peft_type is \"\(type.printable)\", peftool takes \(known)\(way)")
    }
    self.method = method
    if method == .lora { try Self.refuseVariants(fields) }

    let isAdaLoRA = method == .adaLoRA
    let rankFields: [Method: (name: String, default: Int)] = [
      .lora: ("r", 8), .adaLoRA: ("init_r", 12), .shira: ("r", 32),
    ]
    let rankField = rankFields[method]
    let hasRank = rankField != nil
    rank =
      if let rankField { try fields.int(rankField.name, default: rankField.default) } else { 0 }
    guard !hasRank || (1...Self.maximumRank).contains(rank) else {
      throw PeftoolError(.damaged, "the rank is \(rank), expected 1 to \(Self.maximumRank)")
    }
    alpha = try fields.double("lora_alpha", default: 8)
    usesRSLoRA = try fields.bool("use_rslora")
    usesDoRA = try fields.bool("use_dora")
    rankPatterns =
      isAdaLoRA || method == .shira ? [] : try fields.patterns("rank_pattern", Self.rank)
    alphaPatterns = try fields.patterns("alpha_pattern") { (value, place) throws(PeftoolError) in
      try value.double(named: place)
    }
    keptRanks = isAdaLoRA ? try Self.keptRanks(fields) : [:]
    pooledGroupSize = method == .lora ? try Self.pooledGroupSize(fields) : nil
    isFanInFanOut = try fields.bool("fan_in_fan_out")
    hasLoRABias = try fields.bool("lora_bias")
    bias = try fields["bias"]?.string(named: "bias") ?? "none"
    targetModules = try fields.strings("target_modules")
    modulesToSave = try fields.strings("modules_to_save")
    targetParameters = try fields.strings("target_parameters")
    tokens = try Self.tokens(fields)
    ensuresWeightTying = try fields.bool("ensure_weight_tying")
    layerReplication = try Self.layerReplication(fields)
    baseMutation = try Self.baseMutation(fields)
    baseName = try fields["base_model_name_or_path"]?.string(named: "base_model_name_or_path")
  }

  private static let maximumRank = 1 << 20

  /// The rank that the configuration gives a module, by its path without `base_model.model.`.
  ///
  /// - Throws: `unsupported` where matching a pattern takes too many steps.
  package func rank(of path: String) throws(PeftoolError) -> Int {
    try rankPatterns.firstValue(for: path) ?? rank
  }

  /// The rank that AdaLoRA's `rank_pattern` has left a module; nil where it does not name it.
  package func keptRank(of path: String) -> Int? {
    keptRanks[ExactName(path)] ?? keptRanks[ExactName(AdapterKey.prefix + path)]
  }

  /// The factor on B·A: alpha/r, or alpha/√r for rsLoRA.
  ///
  /// For AdaLoRA alpha/(r + 10⁻⁵) with the rank that training began with, and the kept rank for an
  /// alpha that is not positive (`AdaLoraLayer.update_layer`, `SVDLinear.get_delta_weight`).
  /// - Throws: as `rank(of:)`.
  package func scaling(of path: String, keptRank: Int) throws(PeftoolError) -> Double {
    if method == .adaLoRA {
      return Self.adaLoRAScaling(alpha: alpha > 0 ? alpha : Double(keptRank), rank: rank)
    }
    let alpha = try alphaPatterns.firstValue(for: path) ?? alpha
    let rank = Double(try rank(of: path))
    return alpha / (usesRSLoRA ? rank.squareRoot() : rank)
  }

  /// The factor on B·A of QA-LoRA, where A has a column for each group of inputs: s times the number of
  /// groups, which PEFT multiplies means by, over the inputs of one.
  package static func pooledScaling(_ scaling: Double, columns: Int, groupSize: Int) -> Double {
    scaling * Double(columns) / Double(groupSize)
  }

  /// AdaLoRA's factor, with the rank that training began with.
  package static func adaLoRAScaling(alpha: Double, rank: Int) -> Double {
    alpha / (Double(rank) + 1e-5)
  }
}

// What a field may hold.
extension AdapterConfiguration {
  /// Variants of LoRA whose weights mean something else, by the field that switches them on.
  private static let variants = [
    ("kasa_config", "KaSA, whose base was truncated"), ("use_bdlora", "block-diagonal LoRA"),
    ("alora_invocation_tokens", "activated LoRA, which depends on the tokens"),
    ("arrow_config", "Arrow, which depends on the tokens"),
  ]

  private static func refuseVariants(_ fields: Fields) throws(PeftoolError) {
    for (key, what) in variants {
      guard let value = fields[key], value != .bool(false) else { continue }
      throw PeftoolError(.unsupported, "\(key) is set: \(what), which cannot be merged")
    }
  }

  private static func pooledGroupSize(_ fields: Fields) throws(PeftoolError) -> Int? {
    guard try fields.bool("use_qalora") else { return nil }
    let size = try fields.int("qalora_group_size", default: 16)
    guard size > 0 else {
      throw PeftoolError(.damaged, "qalora_group_size is \(size), expected more than 0")
    }
    for key in ["use_dora", "lora_bias"] where try fields.bool(key) {
      throw PeftoolError(.unsupported, "\(key) is set beside use_qalora, which has no such part")
    }
    guard try fields.strings("target_parameters").isEmpty else {
      throw PeftoolError(.unsupported, "target_parameters stand beside use_qalora")
    }
    return size
  }

  private static func rank(_ value: JSON, _ place: String) throws(PeftoolError) -> Int {
    let rank = try value.int(named: place)
    guard (1...maximumRank).contains(rank) else {
      throw value.unfit(place, "1 to \(maximumRank)")
    }
    return rank
  }

  private static func keptRanks(_ fields: Fields) throws(PeftoolError) -> [ExactName: Int] {
    var ranks: [ExactName: Int] = [:]
    for member in try fields["rank_pattern"]?.object(named: "rank_pattern") ?? [] {
      var count = 0
      let place = "rank_pattern.\(member.key)"
      for isKept in try member.value.array(named: place) {
        count += try isKept.bool(named: place) ? 1 : 0
      }
      // The key is the module's, then `lora_E`, as RankAllocator names it.
      guard let dot = member.key.lastIndex(of: ".") else {
        throw PeftoolError(.damaged, "\(place.printable) is no module's lora_E")
      }
      ranks[ExactName(String(member.key[..<dot]))] = count
    }
    return ranks
  }

  private static func tokens(_ fields: Fields) throws(PeftoolError) -> TokenIndices? {
    for key in ["trainable_token_indices", "token_indices"] {
      guard let value = fields[key] else { continue }
      if case .object(let members) = value {
        var modules: [String: [Int]] = [:]
        for member in members {
          modules[member.key] = try rows(member.value, "\(key).\(member.key)")
        }
        return .modules(modules)
      }
      return .inputEmbedding(try rows(value, key))
    }
    return nil
  }

  private static func rows(_ value: JSON, _ place: String) throws(PeftoolError) -> [Int] {
    var rows: [Int] = []
    for element in try value.array(named: place) { rows.append(try element.int(named: place)) }
    return rows
  }

  private static let maximumReplicatedLayerCount = 10_000

  private static func layerReplication(_ fields: Fields) throws(PeftoolError) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    for element in try fields["layer_replication"]?.array(named: "layer_replication") ?? [] {
      let bounds = try rows(element, "layer_replication")
      guard bounds.count == 2, bounds[0] >= 0, bounds[0] < bounds[1],
        bounds[1] <= maximumReplicatedLayerCount
      else {
        throw PeftoolError(
          .damaged, "layer_replication has \(bounds.prefix(4)), expected [first, end] of layers")
      }
      ranges.append(bounds[0]..<bounds[1])
    }
    guard ranges.reduce(0, { $0 + $1.count }) <= maximumReplicatedLayerCount else {
      throw PeftoolError(
        .damaged, "layer_replication makes more than \(maximumReplicatedLayerCount) layers")
    }
    return ranges
  }

  private static func baseMutation(_ fields: Fields) throws(PeftoolError) -> String? {
    guard case .string(let name) = fields["init_lora_weights"] else { return nil }
    let lower = name.lowercased()
    let mutating = ["pissa", "olora", "corda", "loftq", "lora_ga"]
    return mutating.contains(where: lower.hasPrefix) ? name : nil
  }

  /// The members of a configuration, null taken for absent, as PEFT does.
  private struct Fields {
    private let json: JSON

    init(_ json: JSON) { self.json = json }

    subscript(key: String) -> JSON? {
      let value = json[key]
      return value == .null ? nil : value
    }

    func bool(_ key: String) throws(PeftoolError) -> Bool {
      try self[key]?.bool(named: key) ?? false
    }

    func int(_ key: String, default value: Int) throws(PeftoolError) -> Int {
      try self[key]?.int(named: key) ?? value
    }

    func double(_ key: String, default value: Double) throws(PeftoolError) -> Double {
      try self[key]?.double(named: key) ?? value
    }

    /// Strings in an array, or one alone.
    func strings(_ key: String) throws(PeftoolError) -> [String] {
      guard let value = self[key] else { return [] }
      if case .string(let string) = value { return [string] }
      var strings: [String] = []
      for element in try value.array(named: key) { strings.append(try element.string(named: key)) }
      return strings
    }

    func patterns<Value>(
      _ key: String, _ read: (JSON, String) throws(PeftoolError) -> Value
    ) throws(PeftoolError) -> [ModulePattern<Value>] {
      var patterns: [ModulePattern<Value>] = []
      for member in try self[key]?.object(named: key) ?? [] {
        let value = try read(member.value, "\(key).\(member.key)")
        do throws(PeftoolError) {
          patterns.append(try ModulePattern(key: member.key, value: value))
        } catch {
          throw PeftoolError(error.kind, "\(key): \(error.reason)")
        }
      }
      return patterns
    }
  }
}
