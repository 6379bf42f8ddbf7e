package import Checkpoints
package import Files
package import JSON
package import Tensors

/// The model that adapters are folded into: its tensors by name, and what its configuration says.
package struct BaseModel: Sendable {
  /// Its tensors as they lie in files, and the files beside them.
  package let checkpoint: Checkpoint
  /// The model's `config.json`; nil where there is none.
  package let config: JSON?
  /// The tensors by the names that the merged model has: with `layer_replication` some have their
  /// values from the same tensor of the file.
  package let tensors: [Tensor]
  /// For each layer of the merged model the layer of the base; empty without replication.
  package let replicatedLayers: [Int]
  private let places: [ExactName: Int]
  private let hasConv1D: Bool?

  /// A tensor under the name that the merged model gives it.
  package struct Tensor: Sendable {
    /// Its name in the merged model.
    package let name: String
    /// Where its values are.
    package let stored: StoredTensor
  }

  /// The input embedding's tensor.
  package let inputEmbedding: Tensor?
  /// The output embedding's tensor; nil where the model has none or shares the input's.
  package let outputEmbedding: Tensor?
  /// Whether both embeddings are one parameter.
  package let isTied: Bool

  /// Looks at a base, as `replication` makes it.
  ///
  /// Of values at most those of the two embeddings are read, where no configuration says whether
  /// they are tied.
  /// - Throws: `damaged` where `config.json` is no JSON object, `unsupported` for a quantized base,
  ///   a GGUF model and an adapter, `different` where `replication` names a layer that is not there,
  ///   `io`.
  package init(_ checkpoint: Checkpoint, replication: [Range<Int>] = []) throws(PeftoolError) {
    self.checkpoint = checkpoint
    config = try checkpoint.modelConfig
    do throws(PeftoolError) {
      try Self.check(checkpoint, config)
    } catch {
      throw error.at(path: checkpoint.path)
    }
    replicatedLayers = replication.flatMap(Array.init)
    do throws(PeftoolError) {
      tensors = try Self.replicate(checkpoint, layers: replicatedLayers)
    } catch {
      throw error.at(path: checkpoint.path)
    }
    var places: [ExactName: Int] = [:]
    places.reserveCapacity(tensors.count)
    for (place, tensor) in tensors.enumerated() { places[ExactName(tensor.name)] = place }
    self.places = places
    inputEmbedding = Self.embedding(tensors, Self.inputNames)
    outputEmbedding = Self.embedding(tensors, Self.outputNames)
    hasConv1D = Self.hasConv1D(tensors)
    isTied = try Self.isTied(config, inputEmbedding, outputEmbedding)
  }

  /// Whether the embeddings are one parameter.
  ///
  /// Where the configuration is silent, so is transformers about its default, which is to tie them
  /// for GPT-2 and Gemma, and not for Llama: equal values tell. Where it says yes it is believed.
  private static func isTied(
    _ config: JSON?, _ input: Tensor?, _ output: Tensor?
  ) throws(PeftoolError) -> Bool {
    guard let input else { return false }
    let tie = tiesWordEmbeddings(config)
    guard let output else { return (tie ?? true) && hasHead(config) }
    if let tie { return tie }
    return try input.stored.isSame(as: output.stored)
  }

  /// The tensor of that name.
  package subscript(name: String) -> Tensor? { places[ExactName(name)].map { tensors[$0] } }

  /// `model_type`, of the text model where there are several.
  package var modelType: String? {
    guard case .string(let type) = config?["text_config"]?["model_type"] ?? config?["model_type"]
    else { return nil }
    return type
  }

  /// Whether a module is a Conv1D of the GPT-2 family, whose weight lies (in, out); nil where
  /// neither configuration nor tensors tell.
  package func isConv1D(_ module: String) -> Bool? {
    guard Self.conv1DNames.contains(module.lastComponent(after: ".")) else {
      return modelType == nil ? nil : false
    }
    return hasConv1D ?? modelType.map(Self.conv1DModelTypes.contains)
  }

  /// Whether a module is a Conv1D, by names alone: those of the models in a configuration, of which
  /// an image captioner's names several; nil where the module's name may be one, and no model is
  /// named.
  static func isConv1D(_ module: String, _ config: JSON?) -> Bool? {
    guard conv1DNames.contains(module.lastComponent(after: ".")) else { return false }
    let types = modelTypes(config)
    return types.isEmpty ? nil : types.contains(where: conv1DModelTypes.contains)
  }

  /// Every `model_type` of a configuration: its own and those of its parts.
  private static func modelTypes(_ config: JSON?) -> [String] {
    guard case .object(let members) = config else { return [] }
    return members.flatMap { member in
      if member.key == "model_type", case .string(let type) = member.value { return [type] }
      return modelTypes(member.value)
    }
  }

  /// Whether `c_attn` is a Conv1D: it makes three outputs of each input, so that its shape tells.
  ///
  /// It tells more than the type of a model that holds others, an image captioner's say.
  private static func hasConv1D(_ tensors: [Tensor]) -> Bool? {
    let fused = tensors.first { $0.name.hasSuffix("attn.c_attn.weight") }?.stored.shape
    guard let fused, fused.count == 2 else { return nil }
    return fused[0] > 0 && fused[1] % 3 == 0 && fused[1] / 3 == fused[0]
  }

  /// The type that a configuration says its model is computed in, of those of bitsandbytes.
  package static func dtype(_ config: JSON?) -> DType? {
    for part in [config, config?["text_config"]] {
      for key in ["dtype", "torch_dtype"] {
        if case .string(let name) = part?[key], let dtype = FourBitState.dtype(named: name) {
          return dtype
        }
      }
    }
    return nil
  }

  /// The keys of a configuration that call a model quantized: transformers' and MLX's.
  package static let quantizationKeys = ["quantization_config", "quantization"]

  /// Whether peftool computes with weights that were quantized so.
  package static func isKnown(quantMethod: JSON) -> Bool {
    ["bitsandbytes", "gptq", "awq", "hqq"].contains { quantMethod == .string($0) }
  }

  /// What the output embedding is called once it is a tensor of its own.
  package var untiedOutputName: String { "\(Self.outputNames[0]).weight" }

  /// PEFT's `task_type`, as the configuration's first architecture tells it.
  package var task: String? {
    guard case .array(let names) = config?["architectures"], case .string(let name)? = names.first
    else { return nil }
    return Self.tasks.first { name.hasSuffix($0.ending) }?.task
  }

  private static let tasks: [(ending: String, task: String)] = [
    ("ForCausalLM", "CAUSAL_LM"), ("LMHeadModel", "CAUSAL_LM"),
    ("ForConditionalGeneration", "SEQ_2_SEQ_LM"), ("ForSequenceClassification", "SEQ_CLS"),
    ("ForTokenClassification", "TOKEN_CLS"), ("ForQuestionAnswering", "QUESTION_ANS"),
  ]

  /// Whether the configuration names a model that has an output embedding; so it is taken to be
  /// where no architecture is named.
  private static func hasHead(_ config: JSON?) -> Bool {
    guard case .array(let names) = config?["architectures"], !names.isEmpty else { return true }
    return names.contains { name in
      guard case .string(let name) = name else { return false }
      return ["CausalLM", "LMHeadModel", "ConditionalGeneration"].contains(where: name.hasSuffix)
    }
  }

  /// Whether `tie_word_embeddings` stands in the configuration, and how.
  package static func tiesWordEmbeddings(_ config: JSON?) -> Bool? {
    for part in [config, config?["text_config"]] {
      if case .bool(let value) = part?["tie_word_embeddings"] { return value }
    }
    return nil
  }

  private static let conv1DNames = ["c_attn", "c_proj", "c_fc", "q_attn"]
  private static let conv1DModelTypes = ["gpt2", "openai-gpt", "imagegpt", "decision_transformer"]
  private static let inputNames = [
    "embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "tokens_embed",
    "shared",
  ]
  private static let outputNames = ["lm_head", "embed_out"]

  /// Whether a module's path is that of an output embedding.
  package static func isOutputEmbedding(_ module: String) -> Bool {
    outputNames.contains(module.lastComponent(after: "."))
  }

  /// Whether a module's path is that of an input embedding.
  static func isInputEmbedding(_ module: String) -> Bool {
    inputNames.contains(module.lastComponent(after: "."))
  }

  private static func embedding(_ tensors: [Tensor], _ names: [String]) -> Tensor? {
    for name in names {
      let found = tensors.first {
        ".\($0.name)".hasSuffix(".\(name).weight") && $0.stored.shape.count == 2
      }
      if let found { return found }
    }
    return nil
  }

  private static func check(_ checkpoint: Checkpoint, _ config: JSON?) throws(PeftoolError) {
    guard !checkpoint.isAdapter else {
      throw PeftoolError(.unsupported, "is an adapter, expected a base model")
    }
    guard checkpoint.kind != .gguf else {
      throw PeftoolError(
        .unsupported, "is a GGUF model, expected safetensors; peftool convert makes them of it")
    }
    if let config, case .object = config {
    } else if let config {
      throw config.unfit("config.json", "an object")
    }
    if let method = config?["quantization_config"]?["quant_method"] {
      throw PeftoolError(
        .unsupported,
        "is quantized (quant_method \(method.summary)), expected a base in "
          + "F32, F16, BF16 or F8")
    }
    if let settings = config?["quantization"], settings != .null {
      throw PeftoolError(
        .unsupported, "is quantized (by MLX), expected a base in F32, F16, BF16 or F8")
    }
  }

  /// As many as an index of shards may name; keeps a small file from taking much memory.
  private static let maximumReplicatedTensorCount = 300_000

  private static func replicate(
    _ checkpoint: Checkpoint, layers: [Int]
  ) throws(PeftoolError) -> [Tensor] {
    let source = checkpoint.source
    guard !layers.isEmpty else {
      return source.tensors.map { Tensor(name: $0.name, stored: StoredTensor($0, in: source)) }
    }
    var targets: [Int: [Int]] = [:]
    for (target, layer) in layers.enumerated() { targets[layer, default: []].append(target) }
    var tensors: [Tensor] = []
    var seen: Set<Int> = []
    var container: String?
    for info in source.tensors {
      let stored = StoredTensor(info, in: source)
      guard let name = LayerName(info.name) else {
        tensors.append(Tensor(name: info.name, stored: stored))
        continue
      }
      seen.insert(name.layer)
      if let container, !container.isExactly(name.container) {
        throw PeftoolError(
          .unsupported,
          "has layers in '\(container.printable)' and '\(name.container.printable)': "
            + "layer_replication is for models with one list of them")
      }
      container = name.container
      guard tensors.count + (targets[name.layer]?.count ?? 0) <= maximumReplicatedTensorCount else {
        throw PeftoolError(
          .unsupported,
          "would have more than \(maximumReplicatedTensorCount) tensors by the adapter's "
            + "layer_replication")
      }
      for target in targets[name.layer] ?? [] {
        tensors.append(Tensor(name: name.renumbered(target), stored: stored))
      }
    }
    if let missing = layers.first(where: { !seen.contains($0) }) {
      throw PeftoolError(
        .different,
        "has no layer \(missing), which the adapter's layer_replication takes; it has \(seen.count)"
      )
    }
    return tensors
  }
}

/// A tensor's name with the number of its layer: `model.layers.7.mlp.up_proj.weight`.
package struct LayerName: Equatable, Sendable {
  /// The path of the list that the layer is in.
  package let container: String
  /// The layer's number.
  package let layer: Int
  private let end: String

  private static let containers = ["layers", "h", "layer", "blocks", "block"]

  /// Reads a name; nil where it is in no numbered layer.
  package init?(_ name: String) {
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    guard
      let place = parts.indices.dropLast().first(where: {
        Self.containers.contains(String(parts[$0])) && Int(parts[$0 + 1]) != nil
      }), let layer = Int(parts[place + 1])
    else { return nil }
    container = parts[...place].joined(separator: ".")
    end = parts[(place + 2)...].joined(separator: ".")
    self.layer = layer
  }

  /// The name in another layer.
  package func renumbered(_ layer: Int) -> String { "\(container).\(layer).\(end)" }
}

extension String {
  /// What follows the last separator, or all of it.
  func lastComponent(after separator: Character) -> String {
    lastIndex(of: separator).map { String(self[index(after: $0)...]) } ?? self
  }
}
