import Checkpoints
import Files
import Glibc
import JSON
import Tensors

/// What a GGUF model of the Llama family is in transformers' words: the sizes in `config.json`.
///
/// Everything that the tensors can contradict is compared with them.
struct GGUFArchitecture {
  /// The families that `convert` knows.
  enum Family: String {
    case llama, mistral, qwen2, qwen3

    var className: String {
      switch self {
      case .llama: "LlamaForCausalLM"
      case .mistral: "MistralForCausalLM"
      case .qwen2: "Qwen2ForCausalLM"
      case .qwen3: "Qwen3ForCausalLM"
      }
    }

    /// Whether llama.cpp's converter has put the two halves of each head's q and k rows, which
    /// belong together in pairs, side by side.
    var interleavesHeads: Bool { self == .llama || self == .mistral }
    /// Whether q, k and v always have biases.
    var hasBiases: Bool { self == .qwen2 }
    /// Whether q and k have norms of their own.
    var hasHeadNorms: Bool { self == .qwen3 }
  }

  let family: Family
  let layerCount: Int
  let hiddenSize: Int
  let innerSize: Int
  let headCount: Int
  let keyValueHeadCount: Int
  let headSize: Int
  let vocabularySize: Int
  let isTied: Bool
  /// Whether q, k, v and o have biases, in a Llama.
  let hasAttentionBias: Bool
  /// Whether the three matrices of the feed-forward part have biases.
  let hasInnerBias: Bool
  private let contextLength: Int
  private let epsilon: String
  private let ropeBase: String
  private let ropeScaling: JSON
  private let slidingWindow: JSON?

  /// Reads the metadata and looks at the tensors' names and shapes.
  ///
  /// - Parameter ropeFactors: the values of `rope_freqs.weight`, where there is one.
  /// - Throws: `unsupported` for an architecture that is none of the families, `damaged`.
  init(
    _ metadata: GGUFMetadata, _ model: GGUFFile, ropeFactors: [Float]?
  ) throws(PeftoolError) {
    family = try Self.family(metadata)
    func own(_ name: String) -> String { metadata.own(name) }
    layerCount = try metadata.size(own("block_count"))
    hiddenSize = try metadata.size(own("embedding_length"))
    innerSize = try metadata.size(own("feed_forward_length"))
    contextLength = try metadata.size(own("context_length"))
    headCount = try metadata.size(own("attention.head_count"))
    let key = own("attention.head_count_kv")
    keyValueHeadCount = metadata.header[key] == nil ? headCount : try metadata.size(key)
    headSize = try Self.headSize(metadata, hiddenSize: hiddenSize, headCount: headCount)
    let tensors = Set(model.tensors.map { ExactName($0.name) })
    func has(_ name: String) -> Bool { tensors.contains(ExactName(name)) }
    guard
      let embedding = model.tensors.first(where: { $0.name == "token_embd.weight" }),
      embedding.shape.count == 2
    else {
      throw PeftoolError(.damaged, "has no matrix of embeddings", tensor: "token_embd.weight")
    }
    vocabularySize = embedding.shape[0]
    isTied = !has("output.weight")
    hasAttentionBias = family == .llama && has("blk.0.attn_q.bias")
    hasInnerBias = family == .llama && has("blk.0.ffn_gate.bias")
    guard let epsilon = try metadata.number(own("attention.layer_norm_rms_epsilon")) else {
      throw PeftoolError(.damaged, "has no \(own("attention.layer_norm_rms_epsilon"))")
    }
    self.epsilon = epsilon.text
    // llama.cpp's own default.
    let base = try metadata.number(own("rope.freq_base")) ?? (10000, "10000.0")
    ropeBase = base.text
    ropeScaling = try RopeScaling(metadata)
      .json(factors: ropeFactors, base: base.value, headSize: headSize)
    let window = own("attention.sliding_window")
    slidingWindow = try metadata.int(window).map { .number($0) }
  }

  /// The family; of a Mistral its name alone tells, as llama.cpp takes it for a Llama.
  private static func family(_ metadata: GGUFMetadata) throws(PeftoolError) -> Family {
    switch metadata.architecture {
    case "llama":
      let names = try [metadata.text("general.basename"), metadata.text("general.name")]
      if names.contains(where: { $0?.lowercased().contains("mistral") == true }) {
        return .mistral
      }
      return .llama
    case "qwen2": return .qwen2
    case "qwen3": return .qwen3
    default:
      throw PeftoolError(
        .unsupported,
        "its architecture is \(metadata.architecture.printable), expected llama (Llama, Mistral), "
          + "qwen2 or qwen3")
    }
  }

  private static func headSize(
    _ metadata: GGUFMetadata, hiddenSize: Int, headCount: Int
  ) throws(PeftoolError) -> Int {
    let key = metadata.own("attention.key_length")
    let size =
      metadata.header[key] == nil ? hiddenSize / headCount : try metadata.size(key)
    // Values of another length, or heads turned in part only, are other architectures.
    for name in ["attention.value_length", "rope.dimension_count"] {
      guard let other = try metadata.int(metadata.own(name)), other != size else { continue }
      throw PeftoolError(
        .unsupported, "\(metadata.own(name)) is \(other), expected \(size), the size of a head")
    }
    guard size.isMultiple(of: 2) else {
      throw PeftoolError(.damaged, "heads have \(size) rows, expected an even number")
    }
    return size
  }

  /// `config.json`, for weights of a dtype.
  func config(_ tokens: SpecialTokens, dtype: String) -> JSON {
    var members: [JSON.Member] = [
      .init("architectures", .array([.string(family.className)])),
      .init("model_type", .string(family.rawValue)),
      .init("vocab_size", .number(vocabularySize)),
      .init("hidden_size", .number(hiddenSize)),
      .init("intermediate_size", .number(innerSize)),
      .init("num_hidden_layers", .number(layerCount)),
      .init("num_attention_heads", .number(headCount)),
      .init("num_key_value_heads", .number(keyValueHeadCount)),
      .init("head_dim", .number(headSize)),
      .init("hidden_act", .string("silu")),
      .init("max_position_embeddings", .number(contextLength)),
      .init("rms_norm_eps", .number(epsilon)),
      .init("rope_theta", .number(ropeBase)),
      .init("rope_scaling", ropeScaling),
      .init("tie_word_embeddings", .bool(isTied)),
    ]
    switch family {
    case .llama:
      members.append(.init("attention_bias", .bool(hasAttentionBias)))
      members.append(.init("mlp_bias", .bool(hasInnerBias)))
    case .mistral: members.append(.init("sliding_window", slidingWindow ?? .null))
    case .qwen2: break
    case .qwen3: members.append(.init("attention_bias", .bool(false)))
    }
    members += tokens.ids
    members.append(.init("torch_dtype", .string(dtype)))
    return .object(members)
  }
}

/// `rope_scaling` out of the metadata, and out of the factors that stand for Llama 3's.
struct RopeScaling {
  private var members: [JSON.Member] = []

  init(_ metadata: GGUFMetadata) throws(PeftoolError) {
    let prefix = metadata.own("rope.scaling.")
    let known = ["type", "factor", "original_context_length", "finetuned"]
    for pair in metadata.header.metadata where pair.key.hasPrefix(prefix) {
      guard known.contains(String(pair.key.dropFirst(prefix.count))) else {
        throw PeftoolError(
          .unsupported, "\(pair.key.printable) has no place in config.json that peftool knows")
      }
    }
    let type = try metadata.text(prefix + "type") ?? "none"
    guard type != "none" else { return }
    guard type == "linear" || type == "yarn" else {
      throw PeftoolError(
        .unsupported, "\(prefix)type is \(type.printable), expected none, linear or yarn")
    }
    guard let factor = try metadata.number(prefix + "factor") else {
      throw PeftoolError(.damaged, "has no \(prefix)factor")
    }
    members = [.init("rope_type", .string(type)), .init("factor", .number(factor.text))]
    if let length = try metadata.int(prefix + "original_context_length"), type == "yarn" {
      members.append(.init("original_max_position_embeddings", .number(length)))
    }
  }

  /// The value for `config.json`; null where positions are not scaled.
  func json(factors: [Float]?, base: Double, headSize: Int) throws(PeftoolError) -> JSON {
    guard let factors, factors.contains(where: { $0 != 1 }) else {
      return members.isEmpty ? .null : .object(members)
    }
    guard members.isEmpty else {
      throw PeftoolError(
        .unsupported, "has both rope.scaling and factors for frequencies",
        tensor: GGUFTensors.ropeFactors)
    }
    // llama.cpp's converter has worked the settings out to a factor for each frequency; those of
    // every Llama 3 but the two numbers that are looked for are 1 and 4.
    guard let largest = factors.max(), largest.isFinite, factors.count == headSize / 2 else {
      throw Self.unknown
    }
    for exponent in 4...24 {
      let length = Double(1 << exponent)
      let expected = Self.llama3(
        factor: Double(largest), length: length, base: base, headSize: headSize)
      let fits = zip(factors, expected).allSatisfy { abs(Double($0) - $1) <= 1e-5 * $1 }
      guard fits else { continue }
      return .object([
        .init("rope_type", .string("llama3")), .init("factor", .number(Double(largest))),
        .init("low_freq_factor", .number(1.0)), .init("high_freq_factor", .number(4.0)),
        .init("original_max_position_embeddings", .number(1 << exponent)),
      ])
    }
    throw Self.unknown
  }

  private static let unknown = PeftoolError(
    .unsupported, "these factors for frequencies are none of Llama 3's scaling",
    tensor: GGUFTensors.ropeFactors)

  /// What Llama 3 divides each frequency by: nothing for short waves, `factor` for waves longer
  /// than the original context, and in between a mixture.
  private static func llama3(
    factor: Double, length: Double, base: Double, headSize: Int
  ) -> [Double] {
    stride(from: 0, to: headSize, by: 2).map { place in
      let wave = 2 * Double.pi * pow(base, Double(place) / Double(headSize))
      if wave < length / 4 { return 1 }
      if wave > length { return factor }
      let share = (length / wave - 1) / 3
      return 1 / ((1 - share) / factor + share)
    }
  }
}
