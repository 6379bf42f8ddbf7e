import Files
import JSON
import Reports
import Tensors

/// What a `config.json` makes certain of a model's tensors.
///
/// Only rules without a known exception: the number of layers for every family that numbers them
/// under `layers` or `h`, the size of the embeddings and the missing output layer for families
/// whose embeddings are known to be of the model's own size.
struct ModelExpectations {
  private let config: JSON
  private let facts: ModelFacts

  init(_ config: JSON) {
    self.config = config
    facts = ModelFacts(config)
  }

  /// Families of which `config.json` gives the shape of both embeddings.
  private static let plainFamilies: Set = [
    "llama", "mistral", "mixtral", "ministral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma",
    "gemma2", "gemma3_text", "phi", "phi3", "olmo", "olmo2", "olmoe", "granite", "granitemoe",
    "cohere", "cohere2", "starcoder2", "stablelm", "smollm3", "deepseek_v2", "deepseek_v3", "glm",
    "glm4", "gpt_oss", "gpt2",
  ]

  /// The tensors that are not what the configuration says.
  func faults(in tensors: [TensorInfo]) -> [PeftoolError] {
    layerFaults(tensors) + embeddingFaults(tensors)
  }

  /// Layers that the configuration counts and nobody has, and the other way round.
  private func layerFaults(_ tensors: [TensorInfo]) -> [PeftoolError] {
    // Of a model of several parts each may have layers of its own.
    guard config["text_config"] == nil, let count = facts.layerCount, count >= 0 else { return [] }
    var layers: Set<Int> = []
    for tensor in tensors {
      let parts = tensor.name.split(separator: ".", maxSplits: 3)
      let stack = parts.first == "model" || parts.first == "transformer" ? 1 : 0
      guard parts.count > stack + 2, parts[stack] == "layers" || parts[stack] == "h",
        let layer = Int(parts[stack + 1])
      else { continue }
      layers.insert(layer)
    }
    guard !layers.isEmpty else { return [] }
    let missing = (0..<min(count, Self.maximumLayerCount)).filter { !layers.contains($0) }
    let extra = layers.filter { $0 >= count }.sorted()
    var faults: [PeftoolError] = []
    if !missing.isEmpty {
      faults.append(
        PeftoolError(
          .different,
          "says \(count.text(of: "layer")), the tensors have none for layer \(missing.rangesText)"))
    }
    // Layers that predict further tokens come after the counted ones.
    if !extra.isEmpty, config["num_nextn_predict_layers"] == nil {
      faults.append(
        PeftoolError(
          .different,
          "says \(count.text(of: "layer")), the tensors have layer \(extra.rangesText), too"))
    }
    return faults
  }

  /// No model has more; a configuration may say anything.
  private static let maximumLayerCount = 100_000

  private func embeddingFaults(_ tensors: [TensorInfo]) -> [PeftoolError] {
    guard let family = facts.modelType, Self.plainFamilies.contains(family) else { return [] }
    let inputs = ["model.embed_tokens.weight", "transformer.wte.weight", "wte.weight"]
    let input = tensors.first { inputs.contains($0.name) }
    let output = tensors.first { $0.name == "lm_head.weight" }
    var faults: [PeftoolError] = []
    for tensor in [input, output].compactMap({ $0 }) where tensor.shape.count == 2 {
      if let rows = facts.vocabularySize, tensor.shape[0] != rows {
        faults.append(
          PeftoolError(
            .different, "vocab_size is \(rows), the tensor has \(tensor.shape[0]) rows",
            tensor: tensor.name))
      }
      if let columns = facts.hiddenSize, tensor.shape[1] != columns {
        faults.append(
          PeftoolError(
            .different, "hidden_size is \(columns), the tensor has \(tensor.shape[1]) columns",
            tensor: tensor.name))
      }
    }
    let hasHead = facts.architecture?.hasSuffix("ForCausalLM") == true
    if hasHead, input != nil, output == nil, facts.isTied == false {
      faults.append(
        PeftoolError(
          .different, "tie_word_embeddings is false, and there is no such tensor",
          tensor: "lm_head.weight"))
    }
    return faults
  }
}
