import Checkpoints
import Files
import JSON
import Reports

/// What a `config.json` says of a model's architecture, in the words that families use for it.
///
/// Nothing is required: a fact that is absent, or of another type than usual, is left out.
struct ModelFacts {
  private let config: JSON
  /// The part on the language model: of a model with several parts its `text_config`.
  private let text: JSON

  init(_ config: JSON) {
    self.config = config
    text = config["text_config"] ?? config
  }

  var modelType: String? { config["model_type"]?.asString }
  var architecture: String? {
    guard case .array(let names) = config["architectures"] else { return nil }
    return names.first?.asString
  }
  var layerCount: Int? { int("num_hidden_layers", "n_layer", "num_layers", "n_layers") }
  var hiddenSize: Int? { int("hidden_size", "n_embd", "d_model", "dim") }
  var intermediateSize: Int? { int("intermediate_size", "n_inner", "ffn_dim", "d_ff") }
  var headCount: Int? { int("num_attention_heads", "n_head", "num_heads", "n_heads") }
  var keyValueHeadCount: Int? { int("num_key_value_heads") }
  var expertCount: Int? { int("num_local_experts", "num_experts", "n_routed_experts") }
  var vocabularySize: Int? { int("vocab_size") }
  /// Whether the output layer is the embedding; nil where the file leaves it to the family.
  var isTied: Bool? {
    guard case .bool(let value) = config["tie_word_embeddings"] ?? text["tie_word_embeddings"]
    else { return nil }
    return value
  }
  var dtype: String? {
    (config["dtype"] ?? config["torch_dtype"] ?? text["dtype"] ?? text["torch_dtype"])?.asString
  }
  /// `quant_method`, or "mlx", whose settings name none.
  var quantization: String? {
    if let method = config["quantization_config"]?["quant_method"]?.asString { return method }
    return config["quantization"]?["bits"] == nil ? nil : "mlx"
  }

  /// What INT4 by groups has, where `config.json` says it; of other kinds nil.
  private var groupsText: String? {
    var found: Int4Settings?
    do throws(PeftoolError) { found = try Int4Settings(config) } catch {}
    guard let settings = found else { return nil }
    let layout = settings.layout == .gptqV2 ? "gptq_v2, " : ""
    return layout + "4 bits"
      + (settings.groupSize.map { ", groups of \($0)" } ?? "")
      + (settings.isReordered ? " of inputs in any order (desc_act)" : "")
  }

  private func int(_ keys: String...) -> Int? {
    for key in keys {
      if case .number(let digits) = text[key], let value = Int(digits) { return value }
    }
    return nil
  }

  /// The facts in words, or nil where there are none.
  var sentence: String? {
    var parts: [String] = []
    if let layerCount { parts.append(layerCount.text(of: "layer")) }
    if let hiddenSize { parts.append("hidden size \(hiddenSize)") }
    if let intermediateSize { parts.append("inner size \(intermediateSize)") }
    if let headCount {
      let shared = keyValueHeadCount.map { $0 == headCount ? "" : " (\($0) for keys and values)" }
      parts.append(headCount.text(of: "head") + (shared ?? ""))
    }
    if let expertCount { parts.append(expertCount.text(of: "expert")) }
    if let vocabularySize { parts.append("vocabulary of \(vocabularySize.groupedText)") }
    if let isTied { parts.append("embeddings \(isTied ? "tied" : "not tied")") }
    if let quantization {
      parts.append("quantized: \(quantization.printable)" + (groupsText.map { ", " + $0 } ?? ""))
    }
    let name = [modelType?.printable, architecture.map { "(\($0.printable))" }]
      .compactMap { $0 }.joined(separator: " ")
    let words = (name.isEmpty ? [] : [name]) + parts
    return words.isEmpty ? nil : words.joined(separator: ", ")
  }

  /// The facts as members of a JSON object; null for what the file does not say.
  var json: JSON {
    func number(_ value: Int?) -> JSON { value.map { .number($0) } ?? .null }
    func string(_ value: String?) -> JSON { value.map { .string($0) } ?? .null }
    return .object([
      .init("modelType", string(modelType)),
      .init("architecture", string(architecture)),
      .init("layers", number(layerCount)),
      .init("hiddenSize", number(hiddenSize)),
      .init("intermediateSize", number(intermediateSize)),
      .init("heads", number(headCount)),
      .init("keyValueHeads", number(keyValueHeadCount)),
      .init("experts", number(expertCount)),
      .init("vocabularySize", number(vocabularySize)),
      .init("tiedEmbeddings", isTied.map { .bool($0) } ?? .null),
      .init("dtype", string(dtype)),
      .init("quantization", string(quantization)),
    ])
  }
}

extension JSON {
  /// The string that this value is, else nil.
  var asString: String? {
    guard case .string(let text) = self else { return nil }
    return text
  }
}
