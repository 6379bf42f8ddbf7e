import Adapters
import Checkpoints
import Files
import JSON

// A model directory on its way into a GGUF file.
extension GGUFArchitecture {
  /// Reads a model's `config.json`; what is missing is what transformers takes then.
  ///
  /// - Parameter hasOutput: whether the output has a tensor of its own, where the configuration
  ///   does not tell.
  /// - Throws: `unsupported` for a model that is none of the families or is quantized, `damaged`.
  init(config: JSON, hasOutput: Bool) throws(PeftoolError) {
    guard case .object = config else { throw config.unfit("the configuration", "an object") }
    family = try Self.family(config)
    try Self.refuseOthers(config)
    let settings = Settings(config)
    hiddenSize = try settings.size("hidden_size")
    innerSize = try settings.size("intermediate_size")
    layerCount = try settings.size("num_hidden_layers")
    contextLength = try settings.size("max_position_embeddings")
    vocabularySize = try settings.size("vocab_size")
    headCount = try settings.size("num_attention_heads")
    // A Llama of the first kind has as many; the other families have numbers of their own.
    keyValueHeadCount =
      settings["num_key_value_heads"] == nil && family == .llama
      ? headCount : try settings.size("num_key_value_heads")
    let isSet = settings["head_dim"] != nil
    // What transformers takes then: for a Qwen3 128, whatever its sizes.
    headSize =
      isSet ? try settings.size("head_dim") : family == .qwen3 ? 128 : hiddenSize / headCount
    guard headSize > 0, headSize.isMultiple(of: 2) else {
      throw PeftoolError(.damaged, "heads have \(headSize) rows, expected an even number")
    }
    // transformers, through which llama.cpp's converter reads it, always knows it but in a Qwen2.
    namesHeadSize = isSet || family != .qwen2
    isTied = BaseModel.tiesWordEmbeddings(config) ?? !hasOutput
    hasAttentionBias = family == .llama ? try settings.bool("attention_bias") : false
    hasInnerBias = family == .llama ? try settings.bool("mlp_bias") : false
    epsilon = try settings.number("rms_norm_eps") ?? "1e-06"
    let rope = Settings(.object(try RopeScaling.settings(of: config)?.members ?? []))
    let ropeBase = try rope.number("rope_theta")
    self.ropeBase =
      if let ropeBase { ropeBase } else { try settings.number("rope_theta") ?? "10000.0" }
    ropeScaling = try RopeScaling(config: config, contextLength: contextLength)
    // A Qwen has a switch for it, which is off.
    let isWindowed =
      family == .mistral ? true : try settings.bool("use_sliding_window") && family != .llama
    slidingWindow =
      isWindowed && settings["sliding_window"] != nil ? try settings.size("sliding_window") : nil
  }

  private static func family(_ config: JSON) throws(PeftoolError) -> Family {
    let type = try config.string(at: "model_type")
    guard let family = Family(rawValue: type) else {
      let known = Family.allCases.map(\.rawValue).joined(separator: ", ")
      throw PeftoolError(
        .unsupported, "model_type is \(type.printable), expected one of \(known)")
    }
    return family
  }

  private static func refuseOthers(_ config: JSON) throws(PeftoolError) {
    if let value = config["quantization_config"], value != .null {
      throw PeftoolError(
        .unsupported,
        "has a quantization_config: make plain numbers of it first, with peftool dequantize; of "
          + "int4 --dtype q4_1 keeps its codes")
    }
    if let value = config["hidden_act"], value != .string("silu") {
      throw PeftoolError(.unsupported, "hidden_act is \(value.summary), expected silu")
    }
  }

  /// The members of a configuration, null taken for absent.
  private struct Settings {
    private let json: JSON

    init(_ json: JSON) { self.json = json }

    subscript(key: String) -> JSON? { json[key].flatMap { $0 == .null ? nil : $0 } }

    func size(_ key: String) throws(PeftoolError) -> Int {
      guard let value = self[key] else {
        throw PeftoolError(.damaged, "has no \(key)")
      }
      let size = try value.int(named: key)
      guard (1...GGUFMetadata.largestSize).contains(size) else {
        throw value.unfit(key, "1 to \(GGUFMetadata.largestSize)")
      }
      return size
    }

    func bool(_ key: String) throws(PeftoolError) -> Bool {
      try self[key]?.bool(named: key) ?? false
    }

    /// A positive number, as it stands.
    func number(_ key: String) throws(PeftoolError) -> String? {
      guard let value = self[key] else { return nil }
      let single = Float(try value.double(named: key))
      guard single > 0, single.isFinite, case .number(let text) = value else {
        throw value.unfit(key, "a positive number of F32")
      }
      return text
    }
  }

  /// The pairs of metadata that tell the architecture, in the order of llama.cpp's converter;
  /// `fileType` is its number for the mixture of types.
  func fields(fileType: Int) throws(PeftoolError) -> [GGUFField] {
    func own(_ name: String) -> String { "\(family.architecture).\(name)" }
    var fields: [GGUFField] = [
      .u32(own("block_count"), layerCount), .u32(own("context_length"), contextLength),
      .u32(own("embedding_length"), hiddenSize), .u32(own("feed_forward_length"), innerSize),
      .u32(own("attention.head_count"), headCount),
      .u32(own("attention.head_count_kv"), keyValueHeadCount),
    ]
    fields += try ropeScaling.fields(own("rope.scaling."))
    fields += [
      .f32(own("rope.freq_base"), Double(ropeBase) ?? .nan),
      .f32(own("attention.layer_norm_rms_epsilon"), Double(epsilon) ?? .nan),
    ]
    if namesHeadSize {
      fields += [
        .u32(own("attention.key_length"), headSize), .u32(own("attention.value_length"), headSize),
      ]
    }
    fields.append(.u32("general.file_type", fileType))
    if family.architecture == "llama" {
      fields += [
        .u32(own("vocab_size"), vocabularySize), .u32(own("rope.dimension_count"), headSize),
      ]
    }
    return fields
  }

  /// The values of `rope_freqs.weight`; nil where there is none.
  var ropeFactors: [Float]? {
    guard case .llama3(let llama3) = ropeScaling else { return nil }
    return llama3.factors(base: Double(ropeBase) ?? .nan, headSize: headSize).map { Float($0) }
  }
}
