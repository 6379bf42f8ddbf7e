import Adapters
package import Files
package import JSON

/// The shape of a model of the Llama family, from its `config.json`.
///
/// Source: transformers 5, `configuration_{llama,mistral,qwen2,qwen3}.py`. A field of another family
/// that would change the numbers is refused by its name; others that transformers does not read
/// either are passed over.
package struct LlamaConfiguration: Equatable, Sendable {
  /// The families.
  package enum Family: String, CaseIterable, Sendable {
    case llama, mistral, qwen2, qwen3

    /// The heads of keys where a configuration does not have them; nil for as many as of queries.
    fileprivate var keyHeadCount: Int? {
      switch self {
      case .llama: nil
      case .mistral: 8
      case .qwen2, .qwen3: 32
      }
    }
  }

  /// `model_type`.
  package let family: Family
  /// `vocab_size`.
  package let vocabularySize: Int
  /// `hidden_size`.
  package let hiddenSize: Int
  /// `intermediate_size`.
  package let intermediateSize: Int
  /// `num_hidden_layers`.
  package let layerCount: Int
  /// `num_attention_heads`.
  package let headCount: Int
  /// `num_key_value_heads`.
  package let keyHeadCount: Int
  /// `head_dim`.
  package let headSize: Int
  /// `max_position_embeddings`.
  package let positionCount: Int
  /// `rms_norm_eps`.
  package let epsilon: Double
  /// `tie_word_embeddings`.
  package let isTied: Bool
  /// `pad_token_id`, whose row of the input embedding torch does not train; nil for none.
  package let paddingToken: Int?
  /// Which of q, k, v and o have biases, and whether the feed-forward layer has.
  package let biases: Biases
  /// How many keys a query of each layer sees; nil for all.
  package let windows: [Int?]
  /// The rotary frequencies.
  package let rotary: RotaryScaling

  /// Which linear layers have biases.
  package struct Biases: Equatable, Sendable {
    let qkv, o, mlp: Bool
  }

  /// Reads a configuration.
  ///
  /// - Throws: `unsupported` for another family, and for fields that change the numbers in a way
  ///   peftool does not know; `damaged` for values of the wrong type or size.
  package init(_ json: JSON) throws(PeftoolError) {
    let type = try json.string(at: "model_type")
    guard let family = Family(rawValue: type) else {
      let known = Family.allCases.map(\.rawValue).joined(separator: ", ")
      throw PeftoolError(
        .unsupported,
        "model_type is \"\(type.printable)\", peftool computes \(known)")
    }
    let fields = ConfigurationFields(json)
    if let method = json["quantization_config"]?["quant_method"],
      !BaseModel.isKnown(quantMethod: method)
    {
      throw PeftoolError(
        .unsupported,
        "is quantized (quant_method \(method.summary)), peftool computes bitsandbytes, gptq, awq and "
          + "hqq"
      )
    }
    try Self.refuseUnknownMaths(fields)
    self.family = family
    vocabularySize = try fields.size("vocab_size")
    hiddenSize = try fields.size("hidden_size")
    intermediateSize = try fields.size("intermediate_size")
    layerCount = try fields.size("num_hidden_layers", limit: 10_000)
    headCount = try fields.size("num_attention_heads", limit: 1 << 16)
    keyHeadCount = try fields.size(
      "num_key_value_heads",
      default: json["num_key_value_heads"] == nil ? family.keyHeadCount ?? headCount : headCount,
      limit: 1 << 16)
    headSize = try fields.size(
      "head_dim", default: family == .qwen3 ? 128 : hiddenSize / headCount, limit: 1 << 16)
    guard headCount % keyHeadCount == 0 else {
      throw PeftoolError(
        .damaged,
        "num_attention_heads is \(headCount), no multiple of num_key_value_heads, \(keyHeadCount)")
    }
    guard headSize % 2 == 0 else {
      throw PeftoolError(.damaged, "head_dim is \(headSize), expected an even number")
    }
    positionCount = try fields.size("max_position_embeddings")
    epsilon = try fields.double("rms_norm_eps") ?? 1e-6
    guard epsilon >= 0 else {
      throw PeftoolError(.damaged, "rms_norm_eps is \(epsilon), expected 0 or more")
    }
    isTied = try fields.bool("tie_word_embeddings") ?? false
    paddingToken = try fields["pad_token_id"]?.int(named: "pad_token_id")
    let activation = try fields["hidden_act"]?.string(named: "hidden_act") ?? "silu"
    guard activation == "silu" else {
      throw PeftoolError(
        .unsupported, "hidden_act is \"\(activation.printable)\", peftool computes silu")
    }
    let hasBias = try fields.bool("attention_bias") ?? false
    biases = Biases(
      qkv: family == .qwen2 || (family != .mistral && hasBias),
      o: (family == .llama || family == .qwen3) && hasBias,
      mlp: family == .llama ? try fields.bool("mlp_bias") ?? false : false)
    windows = try Self.windows(fields, family, layerCount)
    rotary = try RotaryScaling(fields, positionCount: positionCount)
  }

  /// The most tokens of a text: `max_position_embeddings`, and with `dynamic` frequencies, which
  /// stretch with the text, as many as their factor makes of it.
  package var contextLength: Int {
    guard case .dynamic(let factor, let original) = rotary.kind else { return positionCount }
    return Int(min(Double(original) * max(factor, 1), Double(1 << 30)))
  }

  /// The paths of the linear layers, from the input on.
  package var linearLayers: [String] {
    let layers = linearGroups.flatMap(\.self)
    return (0..<layerCount).flatMap { place in
      layers.map { $0.placed(in: "model.layers.\(place)").module }
    } + [TrainedWeights.head]
  }

  /// Which keys the layers see.
  private static func windows(
    _ fields: ConfigurationFields, _ family: Family, _ count: Int
  ) throws(PeftoolError) -> [Int?] {
    let none = [Int?](repeating: nil, count: count)
    if family == .llama { return none }
    if family != .mistral, try fields.bool("use_sliding_window") != true { return none }
    guard !fields.isNull("sliding_window") else { return none }
    // What transformers takes where there is none.
    let window = try fields.size("sliding_window", default: 4096)
    if family == .mistral { return [Int?](repeating: window, count: count) }
    guard let types = fields["layer_types"] else {
      let first = try fields["max_window_layers"]?.int(named: "max_window_layers") ?? 28
      return (0..<count).map { $0 >= first ? window : nil }
    }
    let names = try types.array(named: "layer_types")
    guard names.count == count else {
      throw PeftoolError(
        .damaged, "layer_types has \(names.count) entries, expected num_hidden_layers, \(count)")
    }
    var windows: [Int?] = []
    for name in names {
      switch try name.string(named: "layer_types") {
      case "full_attention": windows.append(nil)
      case "sliding_attention": windows.append(window)
      case let other:
        throw PeftoolError(
          .unsupported,
          "layer_types has \"\(other.printable)\", peftool computes full_attention and "
            + "sliding_attention")
      }
    }
    return windows
  }

  /// Fields of related models that change the numbers, with the value that changes nothing.
  private static let foreign: [(key: String, neutral: Double?)] = [
    ("attn_logit_softcapping", nil), ("final_logit_softcapping", nil), ("logit_scale", 1),
    ("logits_scaling", 1), ("embedding_multiplier", 1), ("residual_multiplier", 1),
    ("attention_multiplier", nil), ("partial_rotary_factor", 1), ("clip_qkv", nil),
    ("num_experts", 0), ("num_local_experts", 0), ("attention_chunk_size", nil),
    ("no_rope_layers", nil),
  ]
  private static let foreignSwitches = [
    "rope_interleaved", "use_mrope", "qk_layernorm", "use_qk_norm", "alibi", "use_cla",
  ]

  private static func refuseUnknownMaths(_ fields: ConfigurationFields) throws(PeftoolError) {
    for (key, neutral) in foreign {
      guard let value = fields[key] else { continue }
      if let neutral, case .number = value, try value.double(named: key) == neutral { continue }
      throw PeftoolError(
        .unsupported,
        "\(key) is \(value.summary): that changes the numbers in a way peftool does not know")
    }
    for key in foreignSwitches where fields[key] == .bool(true) {
      throw PeftoolError(
        .unsupported, "\(key) is true: that changes the numbers in a way peftool does not know")
    }
  }
}
