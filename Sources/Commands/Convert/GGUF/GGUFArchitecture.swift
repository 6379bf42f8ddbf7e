import Checkpoints
import Files
import JSON
import Tensors

/// What a model of the Llama family is: its sizes and settings, in the metadata of a GGUF file and
/// in `config.json`.
///
/// Everything that the tensors can contradict is compared with them.
struct GGUFArchitecture {
  /// The families that `convert` knows.
  enum Family: String, CaseIterable {
    case llama, mistral, qwen2, qwen3

    /// llama.cpp's name for the architecture; a Mistral is a Llama to it.
    var architecture: String { self == .mistral ? "llama" : rawValue }

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
  let contextLength: Int
  /// A number as JSON has it.
  let epsilon: String
  /// A number as JSON has it.
  let ropeBase: String
  let ropeScaling: RopeScaling
  let slidingWindow: Int?
  /// Whether the size of a head is a setting of its own.
  let namesHeadSize: Bool

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
    ropeScaling = try RopeScaling(
      metadata, factors: ropeFactors, base: base.value, headSize: headSize)
    slidingWindow = try metadata.int(own("attention.sliding_window"))
    namesHeadSize = true
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
    guard size > 0, size.isMultiple(of: 2) else {
      throw PeftoolError(.damaged, "heads have \(size) rows, expected an even number")
    }
    // Values of another length, or heads turned in part only, are other architectures.
    for name in ["attention.value_length", "rope.dimension_count"] {
      guard let other = try metadata.int(metadata.own(name)), other != size else { continue }
      throw PeftoolError(
        .unsupported, "\(metadata.own(name)) is \(other), expected \(size), the size of a head")
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
      .init("rope_scaling", ropeScaling.json),
      .init("tie_word_embeddings", .bool(isTied)),
    ]
    switch family {
    case .llama:
      members.append(.init("attention_bias", .bool(hasAttentionBias)))
      members.append(.init("mlp_bias", .bool(hasInnerBias)))
    case .mistral:
      members.append(.init("sliding_window", slidingWindow.map(JSON.number) ?? .null))
    case .qwen2: break
    case .qwen3: members.append(.init("attention_bias", .bool(false)))
    }
    members += tokens.ids
    members.append(.init("torch_dtype", .string(dtype)))
    return .object(members)
  }
}
