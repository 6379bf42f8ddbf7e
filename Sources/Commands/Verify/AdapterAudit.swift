import Adapters
import Files
import JSON
import Tensors

/// What is wrong with an adapter's tensors, by their names and shapes and its configuration.
struct AdapterAudit {
  private let configuration: AdapterConfiguration
  /// The names in `target_modules`, where it is a list of them.
  private let targets: [String]
  private(set) var faults: [PeftoolError] = []
  private(set) var notes: [String] = []

  /// A module's tensors by what they are for.
  private struct Module {
    let path: String
    let depth: Int
    var parts: [AdapterKey.Part: TensorInfo] = [:]
  }

  init(_ configuration: AdapterConfiguration, _ json: JSON, _ tensors: [TensorInfo]) {
    self.configuration = configuration
    // A single string is a regular expression.
    if case .array = json["target_modules"] {
      targets = configuration.targetModules
    } else {
      targets = []
    }
    var modules: [Module] = []
    var places: [ExactName: Int] = [:]
    for tensor in tensors {
      guard let key = AdapterKey(tensor.name) else {
        add(
          .unsupported,
          "is no key of PEFT's, expected \(AdapterKey.prefix)MODULE.lora_A.weight "
            + "and the like", tensor)
        continue
      }
      guard key.part != .ignored else { continue }
      if !key.part.allows(tensor.dtype) {
        add(
          .unsupported, "is \(tensor.dtype.rawValue), expected \(key.part.dtypesText)", tensor)
      }
      let id = ExactName("\(key.module)\0\(key.depth)")
      let place = places[id] ?? modules.count
      if place == modules.count {
        places[id] = place
        modules.append(Module(path: key.module, depth: key.depth))
      }
      if let other = modules[place].parts.updateValue(tensor, forKey: key.part) {
        add(.damaged, "means the same as '\(other.name.printable)'", tensor)
      }
    }
    if modules.isEmpty, faults.isEmpty {
      faults.append(PeftoolError(.damaged, "an adapter without tensors"))
    }
    for module in modules {
      checkParts(module)
      checkTarget(module)
    }
    if let mutation = configuration.baseMutation {
      notes.append(
        "init_lora_weights is \(mutation.printable): the base was changed before training, "
          + "and the adapter fits only that; merge wants --allow-mutated-base")
    }
  }

  private mutating func add(_ kind: PeftoolError.Kind, _ reason: String, _ tensor: TensorInfo) {
    faults.append(PeftoolError(kind, reason, tensor: tensor.name))
  }

  /// The parts that belong together, all of them or none.
  private mutating func checkParts(_ module: Module) {
    let parts = module.parts
    checkPair(module, (.loraA, "lora_A"), (.loraB, "lora_B"))
    checkPair(module, (.embeddingA, "lora_embedding_A"), (.embeddingB, "lora_embedding_B"))
    let isLoRA = configuration.method == .lora
    let isAdaLoRA = configuration.method == .adaLoRA
    let low = parts[.loraA] ?? parts[.embeddingA]
    if let low, !isLoRA, !isAdaLoRA {
      add(.different, "is LoRA's, the configuration says \(configuration.method.name)", low)
    }
    if let l = parts[.ia3], configuration.method != .ia3 {
      add(.different, "is (IA)³'s, the configuration says \(configuration.method.name)", l)
    }
    checkSparse(module)
    checkCompanion(module, .magnitude, "lora_magnitude_vector", "use_dora", configuration.usesDoRA)
    checkCompanion(
      module, .loraBias, "lora_B.bias", "lora_bias",
      configuration.hasLoRABias && parts[.embeddingA] == nil)
    checkCompanion(module, .loraE, "lora_E", "peft_type ADALORA", isAdaLoRA)
  }

  /// SHiRA's entries and their places.
  private mutating func checkSparse(_ module: Module) {
    switch (module.parts[.shiraWeight], module.parts[.shiraIndices]) {
    case (let values?, let indices?):
      if configuration.method != .shira {
        add(.different, "is SHiRA's, the configuration says \(configuration.method.name)", values)
      } else if values.shape.count != 1 || values.shape[0] % configuration.rank != 0 {
        add(
          .different,
          "has shape \(values.shape.shapeText), the configuration gives "
            + "\(configuration.rank)·(in + out) numbers", values)
      }
      if values.shape.count == 1, indices.shape != [2, values.shape[0]] {
        add(
          .different,
          "has shape \(indices.shape.shapeText), expected \([2, values.shape[0]].shapeText)",
          indices)
      }
    case (let values?, nil): add(.different, "has no shira_indices beside it", values)
    case (nil, let indices?): add(.different, "has no shira_weight beside it", indices)
    case (nil, nil): break
    }
  }

  private mutating func checkPair(
    _ module: Module, _ first: (part: AdapterKey.Part, name: String),
    _ second: (part: AdapterKey.Part, name: String)
  ) {
    switch (module.parts[first.part], module.parts[second.part]) {
    case (let a?, let b?): checkRank(module, a, b)
    case (let a?, nil): add(.different, "has no \(second.name) beside it", a)
    case (nil, let b?): add(.different, "has no \(first.name) beside it", b)
    case (nil, nil): break
    }
  }

  /// A part that a LoRA has if a setting is on, and only then.
  private mutating func checkCompanion(
    _ module: Module, _ part: AdapterKey.Part, _ name: String, _ setting: String, _ isOn: Bool
  ) {
    let low = module.parts[.loraA] ?? module.parts[.embeddingA]
    switch (module.parts[part], low) {
    case (let tensor?, nil): add(.different, "has no lora_A beside it", tensor)
    case (let tensor?, _?) where !isOn:
      add(.different, "belongs to \(setting), which the configuration has not", tensor)
    case (nil, let low?) where isOn:
      add(.different, "has no \(name) beside it, the configuration has \(setting)", low)
    default: break
    }
  }

  private mutating func checkRank(_ module: Module, _ a: TensorInfo, _ b: TensorInfo) {
    guard a.shape.count >= 2, b.shape.count >= 2, a.shape[0] == b.shape[1] else {
      add(
        .different,
        "has shape \(a.shape.shapeText) and '\(b.name.printable)' \(b.shape.shapeText), "
          + "expected one rank: the rows of the first, the columns of the second", a)
      return
    }
    // With target_parameters a module holds the ranks of all experts.
    guard configuration.targetParameters.isEmpty else { return }
    do throws(PeftoolError) {
      let expected =
        configuration.method == .adaLoRA
        ? configuration.keptRank(of: module.path) ?? configuration.rank
        : try configuration.rank(of: module.path)
      if a.shape[0] != expected {
        add(
          .different, "has rank \(a.shape[0]), the configuration gives rank \(expected)", a)
      }
    } catch {
      add(error.kind, error.reason, a)
    }
  }

  /// PEFT passes over a module that `target_modules` does not name.
  private mutating func checkTarget(_ module: Module) {
    guard !targets.isEmpty, configuration.targetParameters.isEmpty,
      !module.path.contains(".base_layer."),
      let tensor = module.parts[.loraA] ?? module.parts[.embeddingA] ?? module.parts[.ia3]
        ?? module.parts[.shiraWeight]
    else { return }
    let isNamed = targets.contains { module.path == $0 || module.path.hasSuffix(".\($0)") }
    // PEFT stores the input's adapter a second time for the output that shares its weight.
    let isTiedEnd =
      configuration.ensuresWeightTying && BaseModel.isOutputEmbedding(module.path)
    if !isNamed, !isTiedEnd {
      add(.different, "is for a module that target_modules does not name", tensor)
    }
  }
}
