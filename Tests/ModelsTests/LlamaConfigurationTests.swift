import Files
import JSON
import Testing

@testable import Models

/// A configuration with some fields changed, or left out where the new text is empty.
private func configuration(_ changes: [String: String] = [:]) throws -> LlamaConfiguration {
  let fields = [
    "model_type": "\"llama\"", "vocab_size": "32", "hidden_size": "16", "intermediate_size": "24",
    "num_hidden_layers": "3", "num_attention_heads": "4", "max_position_embeddings": "128",
  ].merging(changes) { $1 }
  let text = fields.filter { $1 != "" }.map { "\"\($0)\": \($1)" }.joined(separator: ", ")
  return try LlamaConfiguration(JSON(parsing: Array("{\(text)}".utf8)))
}

/// Fields that are refused, and the one line that says why.
private struct Refusal: CustomTestStringConvertible {
  let changes: [String: String]
  let kind: PeftoolError.Kind
  let reason: String

  init(_ changes: [String: String], _ reason: String) { self.init(changes, .damaged, reason) }

  init(_ changes: [String: String], _ kind: PeftoolError.Kind, _ reason: String) {
    self.changes = changes
    self.kind = kind
    self.reason = reason
  }

  var testDescription: String { reason }

  func check() {
    #expect(throws: PeftoolError(kind, reason)) { try configuration(changes) }
  }
}

private let sizes = [
  "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
  "max_position_embeddings",
]

@Suite struct LlamaConfigurationTests {
  @Test func fieldsAreRead() throws {
    let read = try configuration([
      "num_key_value_heads": "2", "head_dim": "6", "rms_norm_eps": "1e-5",
      "tie_word_embeddings": "true", "attention_bias": "true", "mlp_bias": "true",
      "rope_theta": "5e5", "hidden_act": "\"silu\"",
    ])
    #expect(read.family == .llama && read.vocabularySize == 32 && read.hiddenSize == 16)
    #expect(read.intermediateSize == 24 && read.layerCount == 3 && read.headCount == 4)
    #expect(read.keyHeadCount == 2 && read.headSize == 6 && read.positionCount == 128)
    #expect(read.epsilon == 1e-5 && read.isTied)
    #expect(read.biases == .init(qkv: true, o: true, mlp: true))
    #expect(read.windows == [nil, nil, nil])
    #expect(read.rotary == RotaryScaling(theta: 5e5))
  }

  /// `configuration_{llama,mistral,qwen2,qwen3}.py` of transformers 5.
  @Test func eachFamilyHasItsDefaults() throws {
    let llama = try configuration()
    #expect(llama.keyHeadCount == 4 && llama.headSize == 4 && !llama.isTied)
    #expect(llama.epsilon == 1e-6 && llama.rotary == RotaryScaling(theta: 10_000))
    #expect(llama.biases == .init(qkv: false, o: false, mlp: false))

    let heads = ["num_attention_heads": "32", "hidden_size": "64"]
    let mistral = try configuration(heads.merging(["model_type": "\"mistral\""]) { $1 })
    #expect(mistral.keyHeadCount == 8 && mistral.headSize == 2)
    #expect(mistral.windows == [4096, 4096, 4096])
    #expect(mistral.biases == .init(qkv: false, o: false, mlp: false))

    let qwen2 = try configuration(heads.merging(["model_type": "\"qwen2\""]) { $1 })
    #expect(qwen2.keyHeadCount == 32 && qwen2.headSize == 2)
    #expect(qwen2.biases == .init(qkv: true, o: false, mlp: false))
    #expect(qwen2.windows == [nil, nil, nil])

    let qwen3 = try configuration(heads.merging(["model_type": "\"qwen3\""]) { $1 })
    #expect(qwen3.keyHeadCount == 32 && qwen3.headSize == 128)
    #expect(qwen3.biases == .init(qkv: false, o: false, mlp: false))
    #expect(qwen3.windows == [nil, nil, nil])
  }

  @Test func nullHeadsOfKeysAreAsManyAsOfQueries() throws {
    let read = try configuration(["model_type": "\"mistral\"", "num_key_value_heads": "null"])
    #expect(read.keyHeadCount == 4)
  }

  @Test(
    arguments: [
      // Mistral's window holds for all layers; null is none.
      (
        ["model_type": "\"mistral\"", "num_key_value_heads": "4", "sliding_window": "7"], [7, 7, 7]
      ),
      (
        ["model_type": "\"mistral\"", "num_key_value_heads": "4", "sliding_window": "null"],
        [nil, nil, nil]
      ),
      // Qwen's has to be switched on, and holds from a layer on or for those that are named.
      (
        ["model_type": "\"qwen2\"", "num_key_value_heads": "4", "sliding_window": "7"],
        [nil, nil, nil]
      ),
      (
        [
          "model_type": "\"qwen2\"", "num_key_value_heads": "4", "sliding_window": "7",
          "use_sliding_window": "true", "max_window_layers": "1",
        ], [nil, 7, 7]
      ),
      (
        [
          "model_type": "\"qwen2\"", "num_key_value_heads": "4", "use_sliding_window": "true",
          "max_window_layers": "0",
        ], [4096, 4096, 4096]
      ),
      (
        [
          "model_type": "\"qwen3\"", "num_key_value_heads": "4", "sliding_window": "9",
          "use_sliding_window": "true",
          "layer_types": #"["full_attention", "sliding_attention", "full_attention"]"#,
        ], [nil, 9, nil]
      ),
      (
        [
          "model_type": "\"qwen2\"", "num_key_value_heads": "4", "sliding_window": "null",
          "use_sliding_window": "true", "max_window_layers": "0",
        ], [nil, nil, nil]
      ),
      (
        [
          "model_type": "\"qwen2\"", "num_key_value_heads": "4", "sliding_window": "7",
          "use_sliding_window": "true",
        ], [nil, nil, nil]
      ),
      // Llama has none.
      (["sliding_window": "7", "use_sliding_window": "true"], [nil, nil, nil]),
    ] as [([String: String], [Int?])])
  func windowsAreThoseOfTheFamily(changes: [String: String], windows: [Int?]) throws {
    #expect(try configuration(changes).windows == windows)
  }

  @Test func bothSpellingsOfRotarySettingsMeanTheSame() throws {
    let kind = RotaryScaling.Kind.llama3(factor: 8, low: 1, high: 4, original: 64)
    let settings = """
      "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
      "original_max_position_embeddings": 64
      """
    let older = try configuration([
      "rope_theta": "500000.0", "rope_scaling": "{\"rope_type\": \"llama3\", \(settings)}",
    ])
    let oldest = try configuration([
      "rope_theta": "500000.0", "rope_scaling": "{\"type\": \"llama3\", \(settings)}",
    ])
    let newer = try configuration([
      "rope_parameters": "{\"rope_type\": \"llama3\", \"rope_theta\": 5e5, \(settings)}"
    ])
    #expect(older.rotary == RotaryScaling(theta: 5e5, kind: kind))
    #expect(oldest == older && newer == older)
  }

  @Test func absentRotarySettingsAreNone() throws {
    let plain = RotaryScaling(theta: 10_000)
    #expect(try configuration(["rope_scaling": "null"]).rotary == plain)
    #expect(try configuration(["rope_scaling": "{}", "rope_theta": "null"]).rotary == plain)
    #expect(
      try configuration(["rope_parameters": "{\"rope_type\": \"default\"}"]).rotary == plain)
    #expect(
      try configuration(["rope_parameters": "{\"rope_theta\": 7}"]).rotary
        == RotaryScaling(theta: 7))
  }

  @Test func fieldsThatChangeNothingArePassedOver() throws {
    let plain = try configuration()
    let neutral = try configuration([
      "logit_scale": "1.0", "partial_rotary_factor": "1", "num_experts": "0", "alibi": "false",
      "attn_logit_softcapping": "null", "clip_qkv": "null", "use_cache": "true", "bos": "[1]",
    ])
    #expect(neutral == plain)
  }

  @Test(arguments: [
    ("attn_logit_softcapping", "50.0"), ("final_logit_softcapping", "30.0"),
    ("logit_scale", "0.5"), ("logits_scaling", "8"), ("embedding_multiplier", "12.0"),
    ("residual_multiplier", "0.22"), ("attention_multiplier", "0.1"),
    ("partial_rotary_factor", "0.5"), ("clip_qkv", "8.0"), ("num_experts", "8"),
    ("num_local_experts", "8"), ("attention_chunk_size", "8192"), ("rope_interleaved", "true"),
    ("use_mrope", "true"), ("qk_layernorm", "true"), ("use_qk_norm", "true"), ("alibi", "true"),
    ("use_cla", "true"), ("logit_scale", "\"1\""), ("no_rope_layers", "[1]"),
  ])
  func unknownMathsIsRefusedByItsName(key: String, value: String) {
    let shown = value == "[1]" ? "an array of 1" : value
    Refusal(
      [key: value], .unsupported,
      "\(key) is \(shown): that changes the numbers in a way peftool does not know"
    ).check()
  }

  @Test(arguments: sizes, ["0", "-1", "1073741825", "18446744073709551616"])
  func sizesHaveToBePositiveAndNotTooGreat(key: String, value: String) {
    let limit =
      switch key {
      case "num_hidden_layers": 10_000
      case "num_attention_heads": 65_536
      default: 1 << 30
      }
    let expected = value.count > 18 ? "an integer" : "1 to \(limit)"
    Refusal([key: value], "\(key) is \(value), expected \(expected)").check()
  }

  @Test(arguments: ["quanto", "fp8", "compressed-tensors"])
  func codesOfOthersAreRefused(method: String) {
    Refusal(
      ["quantization_config": "{\"quant_method\": \"\(method)\"}"], .unsupported,
      "is quantized (quant_method \"\(method)\"), peftool computes bitsandbytes, gptq, awq and "
        + "hqq"
    ).check()
  }

  @Test(arguments: sizes) func sizesHaveToBeThereAndIntegers(key: String) {
    Refusal([key: ""], "has no \(key)").check()
    Refusal([key: "null"], "has no \(key)").check()
    Refusal([key: "\"8\""], "\(key) is \"8\", expected an integer").check()
    Refusal([key: "8.0"], "\(key) is 8.0, expected an integer").check()
    Refusal([key: "[8]"], "\(key) is an array of 1, expected an integer").check()
  }

  @Test(
    arguments: [
      (["num_hidden_layers": "10000"], true), (["num_hidden_layers": "10001"], false),
      (["num_attention_heads": "65536", "hidden_size": "131072"], true),
      (["num_attention_heads": "65537", "hidden_size": "131074"], false),
      (["head_dim": "65536"], true), (["head_dim": "65538"], false),
      (["vocab_size": "1073741824"], true),
    ] as [([String: String], Bool)])
  func limitsAreLimits(changes: [String: String], isTaken: Bool) {
    #expect(((try? configuration(changes)) != nil) == isTaken)
  }

  private static let refusals: [Refusal] = [
    .init(["model_type": ""], "model_type is missing, expected a string"),
    .init(
      ["model_type": "\"gemma2\""], .unsupported,
      "model_type is \"gemma2\", peftool computes llama, mistral, qwen2, qwen3"),
    .init(
      ["num_key_value_heads": "3"],
      "num_attention_heads is 4, no multiple of num_key_value_heads, 3"),
    .init(
      ["num_key_value_heads": "8"],
      "num_attention_heads is 4, no multiple of num_key_value_heads, 8"),
    .init(["head_dim": "5"], "head_dim is 5, expected an even number"),
    .init(["num_attention_heads": "16"], "head_dim is 1, expected an even number"),
    .init(["num_attention_heads": "32"], "has no head_dim"),
    .init(
      ["hidden_act": "\"gelu\""], .unsupported, "hidden_act is \"gelu\", peftool computes silu"),
    .init(["hidden_act": "1"], "hidden_act is 1, expected a string"),
    .init(["rms_norm_eps": "-1e-6"], "rms_norm_eps is -1e-06, expected 0 or more"),
    .init(["rms_norm_eps": "\"1e-6\""], "rms_norm_eps is \"1e-6\", expected a number"),
    .init(["tie_word_embeddings": "1"], "tie_word_embeddings is 1, expected true or false"),
    .init(["attention_bias": "\"no\""], "attention_bias is \"no\", expected true or false"),
    .init(["mlp_bias": "0"], "mlp_bias is 0, expected true or false"),
    .init(
      ["model_type": "\"mistral\"", "num_key_value_heads": "4", "sliding_window": "0"],
      "sliding_window is 0, expected 1 to 1073741824"),
    .init(
      [
        "model_type": "\"qwen2\"", "num_key_value_heads": "4", "use_sliding_window": "true",
        "layer_types": #"["full_attention"]"#,
      ], "layer_types has 1 entries, expected num_hidden_layers, 3"),
    .init(
      [
        "model_type": "\"qwen2\"", "num_key_value_heads": "4", "use_sliding_window": "true",
        "layer_types": #"["full_attention", "linear_attention", "full_attention"]"#,
      ], .unsupported,
      "layer_types has \"linear_attention\", peftool computes full_attention and "
        + "sliding_attention"),
    .init(["rope_theta": "0"], "rope_theta is 0.0, expected more than 0.0"),
    .init(["rope_theta": "\"1e4\""], "rope_theta is \"1e4\", expected a number"),
    .init(["rope_scaling": "2"], "rope_scaling is 2, expected an object"),
    .init(
      ["rope_scaling": #"{"type": "su"}"#], .unsupported,
      "rope_scaling.rope_type is \"su\", peftool computes default, linear, dynamic, llama3, yarn"),
    .init(["rope_scaling": #"{"type": "linear"}"#], "has no rope_scaling.factor"),
    .init(
      ["rope_parameters": #"{"rope_type": "linear", "factor": -2}"#],
      "rope_parameters.factor is -2.0, expected more than 0.0"),
    .init(
      ["rope_parameters": #"{"full_attention": {"rope_type": "default"}}"#], .unsupported,
      "rope_parameters differs by layer, expected one for all"),
    .init(
      ["rope_parameters": #"{"partial_rotary_factor": 0.5}"#], .unsupported,
      "rope_parameters.partial_rotary_factor is 0.5, expected 1"),
    .init(
      [
        "rope_scaling":
          #"{"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}"#
      ], "rope_scaling.high_freq_factor is 4.0, expected more than 4.0"),
    .init(
      [
        "rope_scaling":
          #"{"type": "yarn", "factor": 4, "original_max_position_embeddings": 0}"#
      ],
      "rope_scaling.original_max_position_embeddings is 0, expected 1 to 1073741824"),
    .init(
      ["rope_scaling": #"{"type": "yarn", "factor": 4, "attention_factor": 0}"#],
      "rope_scaling.attention_factor is 0.0, expected more than 0.0"),
    .init(
      ["rope_scaling": #"{"type": "yarn", "factor": 4, "truncate": 1}"#],
      "rope_scaling.truncate is 1, expected true or false"),
  ]

  @Test(arguments: refusals.indices) func whatIsNoSuchModelIsRefused(place: Int) {
    Self.refusals[place].check()
  }
}
