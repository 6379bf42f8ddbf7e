import Adapters
import Files
import JSON
import Reports
import Tensors

/// What an adapter is, from its configuration and the names and shapes of its tensors.
///
/// Takes any adapter of PEFT's, those too that peftool does not merge.
struct AdapterFacts {
  /// `adapter_config.json`.
  let json: JSON
  /// The configuration as `merge` reads it, or why it does not.
  let configuration: AdapterConfiguration?
  let refusal: PeftoolError?
  /// The modules that have tensors of the method's own, in the file's order.
  let modules: [Module]
  /// Modules whose whole values are saved: `modules_to_save`, embeddings, biases.
  let savedModules: [String]
  /// Names that are none of PEFT's.
  let strangeNames: [String]

  /// One module's share of the adapter.
  struct Module {
    let path: String
    /// The rank that its tensors have; nil for a method without one.
    var rank: Int?
    /// The entries of a sparse change; nil for other methods.
    var entryCount: Int?
    /// The factor on its change; nil where there is none or the configuration is refused.
    var scaling: Double?
    /// The columns of A.
    var columnCount: Int?
  }

  init(_ json: JSON, tensors: [TensorInfo]) {
    self.json = json
    do throws(PeftoolError) {
      configuration = try AdapterConfiguration(json)
      refusal = nil
    } catch {
      (configuration, refusal) = (nil, error)
    }
    var modules: [Module] = []
    var places: [ExactName: Int] = [:]
    var saved: [ExactName: Int] = [:]
    var strange: [String] = []
    for tensor in tensors {
      guard let key = AdapterKey(tensor.name) else {
        strange.append(tensor.name)
        continue
      }
      if case .own = key.part, configuration != nil {
        if saved[ExactName(key.module)] == nil { saved[ExactName(key.module)] = saved.count }
        continue
      }
      let name = ExactName(key.module)
      let place = places[name] ?? modules.count
      if place == modules.count {
        places[name] = place
        modules.append(Module(path: key.module))
      }
      switch key.part {
      case .loraA, .embeddingA:
        modules[place].rank = tensor.shape.first
        modules[place].columnCount = tensor.shape.last
      case .shiraWeight: modules[place].entryCount = tensor.elementCount
      default: break
      }
    }
    if let configuration, configuration.method == .lora || configuration.method == .adaLoRA {
      for place in modules.indices {
        guard let rank = modules[place].rank else { continue }
        // A pattern that takes too many steps is told by `verify` and `merge`.
        modules[place].scaling = try? configuration.scaling(
          of: modules[place].path, keptRank: rank)
        if configuration.pooledGroupSize != nil, let groups = modules[place].columnCount {
          modules[place].scaling? *= Double(groups)
        }
        // A parameter with experts holds the ranks of all of them.
        if !configuration.targetParameters.isEmpty, rank % configuration.rank == 0 {
          modules[place].rank = configuration.rank
        }
      }
    }
    self.modules = modules
    savedModules = saved.sorted { $0.value < $1.value }.map(\.key.string)
    strangeNames = strange
  }

  private static let names = [
    "ADALORA": "AdaLoRA", "IA3": "(IA)³", "LOHA": "LoHa", "LOKR": "LoKr", "VERA": "VeRA",
    "HIRA": "HiRA", "MISS": "MiSS", "SHIRA": "SHiRA", "BONE": "Bone", "FOURIERFT": "FourierFT",
    "VBLORA": "VB-LoRA", "XLORA": "X-LoRA", "LN_TUNING": "LayerNorm tuning",
    "PREFIX_TUNING": "prefix tuning",
    "PROMPT_TUNING": "prompt tuning", "P_TUNING": "p-tuning",
    "TRAINABLE_TOKENS": "trainable tokens",
  ]

  /// The method as its paper spells it: `LoRA`, `DoRA`, `(IA)³`.
  var method: String {
    guard let type = json["peft_type"]?.asString else { return "unknown" }
    if type == "LORA" {
      if json["use_qalora"] == .bool(true) { return "QA-LoRA" }
      return json["use_dora"] == .bool(true) ? "DoRA" : "LoRA"
    }
    return Self.names[type] ?? type.printable
  }

  /// The method with what changes its numbers.
  private var methodText: String {
    var text = method
    if json["use_rslora"] == .bool(true) { text += " with rank-stabilized scaling (rsLoRA)" }
    if let start = json["init_lora_weights"]?.asString {
      text += ", initialized by \(start.printable)"
    }
    return text
  }

  /// The facts one below the other.
  func append(to facts: inout Facts) {
    facts.append("adapter", methodText)
    facts.append("made for", json["base_model_name_or_path"]?.asString?.printable)
    facts.append("task", json["task_type"]?.asString?.printable)
    facts.append("rank", modules.compactMap(\.rank).countsText { "\($0)" })
    facts.append(
      "entries", modules.compactMap(\.entryCount).countsText { "\($0.groupedText) a module" })
    facts.append("groups", configuration?.pooledGroupSize.map { "of \($0.text(of: "input"))" })
    facts.append("alpha", alphaText)
    facts.append("scaling", scalingText)
    for key in ["rank_pattern", "alpha_pattern"] { facts.append(key, patternText(key)) }
    facts.append("targets", targetsText)
    facts.append("saved whole", savedModules.isEmpty ? nil : Self.list(savedModules))
    facts.append("parameters of", names("target_parameters"))
    facts.append("tokens", tokensText)
    facts.append("biases", biasText)
    facts.append("layers made", layersText)
    facts.append("PEFT", json["peft_version"]?.asString?.printable)
    if !strangeNames.isEmpty {
      facts.append(
        "note",
        "\(strangeNames.count.text(of: "name")) not of PEFT's form: \(Self.list(strangeNames))")
    }
    facts.append("note", refusal.map { "merge does not take it: \($0.reason)" })
    if let start = configuration?.baseMutation {
      facts.append(
        "note",
        "\(start.printable) changed the base when training began: the adapter fits only that")
    }
  }

  private var alphaText: String? {
    guard let configuration, configuration.method == .lora || configuration.method == .adaLoRA
    else { return json["lora_alpha"].flatMap { $0 == .null ? nil : $0.summary } }
    return configuration.alpha.measureText
  }

  private var scalingText: String? {
    guard let configuration else { return nil }
    return modules.compactMap(\.scaling).countsText(\.measureText).map {
      $0
        + (configuration.method == .adaLoRA
          ? " (alpha / the rank at first"
          : configuration.usesRSLoRA ? " (alpha / √rank" : " (alpha / rank")
        + (configuration.pooledGroupSize == nil ? ")" : " · groups)")
    }
  }

  private func patternText(_ key: String) -> String? {
    guard case .object(let members) = json[key], !members.isEmpty else { return nil }
    let shown = members.prefix(Self.listedCount).map {
      "\($0.key.printable): \($0.value.keptRanksText ?? $0.value.summary)"
    }
    return shown.joined(separator: ", ") + Self.rest(members.count)
  }

  /// How often each module name is a target, and in which layers.
  private var targetsText: String? {
    guard !modules.isEmpty else { return nil }
    var counts: [(name: String, count: Int)] = []
    var places: [String: Int] = [:]
    var layers: Set<Int> = []
    for module in modules {
      let parts = module.path.split(separator: ".")
      let name = parts.last { Int($0) == nil }.map(String.init) ?? module.path
      if let layer = parts.lazy.compactMap({ Int($0) }).first { layers.insert(layer) }
      if let place = places[name] {
        counts[place].count += 1
      } else {
        places[name] = counts.count
        counts.append((name, 1))
      }
    }
    var text = counts.prefix(Self.listedTargetCount)
      .map { $0.count == 1 ? $0.name.printable : "\($0.name.printable) ×\($0.count)" }
      .joined(separator: ", ")
    if counts.count > Self.listedTargetCount {
      text += " and \(counts.count - Self.listedTargetCount) more"
    }
    if !layers.isEmpty {
      text += "; layer\(layers.count == 1 ? "" : "s") \(layers.sorted().rangesText)"
    }
    return text
  }

  private func names(_ key: String) -> String? {
    guard case .array(let values) = json[key], !values.isEmpty else { return nil }
    return Self.list(values.compactMap(\.asString))
  }

  private var tokensText: String? {
    switch configuration?.tokens {
    case .inputEmbedding(let rows): "\(rows.count.text(of: "row")) of the embedding replaced"
    case .modules(let modules):
      modules.sorted { $0.key.precedesByBytes($1.key) }
        .map { "\($0.value.count.text(of: "row")) of \($0.key.printable)" }.joined(separator: ", ")
    case nil: nil
    }
  }

  private var biasText: String? {
    var parts: [String] = []
    if let bias = json["bias"]?.asString, bias != "none" {
      parts.append("\(bias.printable) (bias)")
    }
    if json["lora_bias"] == .bool(true) { parts.append("on lora_B (lora_bias)") }
    return parts.isEmpty ? nil : parts.joined(separator: ", ")
  }

  private var layersText: String? {
    guard let ranges = configuration?.layerReplication, !ranges.isEmpty else { return nil }
    let count = ranges.reduce(0) { $0 + $1.count }
    return "\(count) out of layers "
      + ranges.prefix(Self.listedCount).map { "\($0.lowerBound)-\($0.upperBound - 1)" }
      .joined(separator: ", ") + Self.rest(ranges.count)
  }

  private static let listedCount = 6
  private static let listedTargetCount = 24

  private static func rest(_ count: Int) -> String {
    count > listedCount ? " and \(count - listedCount) more" : ""
  }

  private static func list(_ names: [String]) -> String {
    names.prefix(listedCount).map(\.printable).joined(separator: ", ") + rest(names.count)
  }

  /// The facts as a JSON object.
  var report: JSON {
    func number(_ value: Double?) -> JSON { value.map { .number($0) } ?? .null }
    let strings: ([String]) -> JSON = { .array($0.map { .string($0) }) }
    return .object([
      .init("method", .string(method)),
      .init("peftType", json["peft_type"] ?? .null),
      .init("base", json["base_model_name_or_path"] ?? .null),
      .init("alpha", json["lora_alpha"] ?? .null),
      .init("usesRSLoRA", .bool(json["use_rslora"] == .bool(true))),
      .init(
        "modules",
        .array(
          modules.map {
            .object([
              .init("path", .string($0.path)),
              .init("rank", $0.rank.map { .number($0) } ?? .null),
              .init("scaling", number($0.scaling)),
              .init("entries", $0.entryCount.map { .number($0) } ?? .null),
            ])
          })),
      .init("savedModules", strings(savedModules)),
      .init("strangeNames", strings(strangeNames)),
      .init("refusal", refusal.map { .string($0.reason) } ?? .null),
      .init("config", json),
    ])
  }
}

extension Array where Element: Hashable & Comparable {
  /// One value alone, several with the number of modules that have each, the most frequent first.
  func countsText(_ text: (Element) -> String) -> String? {
    let counts = Dictionary(grouping: self) { $0 }.mapValues(\.count)
    guard counts.count > 1 else { return counts.first.map { text($0.key) } }
    return counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
      .map { "\(text($0.key)) (\($0.value.text(of: "module")))" }.joined(separator: ", ")
  }
}

extension JSON {
  /// The true ones of an array of truth values, AdaLoRA's `rank_pattern`; nil of anything else.
  fileprivate var keptRanksText: String? {
    guard case .array(let values) = self, !values.isEmpty else { return nil }
    var keptCount = 0
    for value in values {
      guard case .bool(let isKept) = value else { return nil }
      keptCount += isKept ? 1 : 0
    }
    return "\(keptCount) of \(values.count)"
  }
}
