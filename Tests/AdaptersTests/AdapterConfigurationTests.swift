import Files
import JSON
import Testing

@testable import Adapters

/// A configuration from its text.
func configuration(_ text: String) throws -> AdapterConfiguration {
  try AdapterConfiguration(JSON(parsing: Array(text.utf8)))
}

@Suite struct AdapterConfigurationTests {
  @Test func scalingIsAlphaByRank() throws {
    let plain = try configuration(#"{"peft_type": "LORA", "r": 4, "lora_alpha": 6}"#)
    #expect(try plain.scaling(of: "model.layers.0.q_proj", keptRank: 4) == 1.5)
    let stabilized = try configuration(
      #"{"peft_type": "LORA", "r": 4, "lora_alpha": 6, "use_rslora": true}"#)
    #expect(try stabilized.scaling(of: "model.layers.0.q_proj", keptRank: 4) == 3)
  }

  @Test func absentFieldsHavePEFTsDefaults() throws {
    let configuration = try configuration(#"{"peft_type": "LORA", "r": null, "use_dora": null}"#)
    #expect(configuration.rank == 8)
    #expect(configuration.alpha == 8)
    #expect(!configuration.usesDoRA)
    #expect(configuration.bias == "none")
  }

  @Test func theFirstPatternThatMatchesWins() throws {
    let configuration = try configuration(
      #"""
      {"peft_type": "LORA", "r": 8, "lora_alpha": 8,
       "rank_pattern": {"layers\\.1\\..*": 2, "q_proj": 4, ".*v_proj": 16},
       "alpha_pattern": {"q_proj": 32}}
      """#)
    #expect(try configuration.rank(of: "model.layers.1.self_attn.q_proj") == 2)
    #expect(try configuration.rank(of: "model.layers.0.self_attn.q_proj") == 4)
    #expect(try configuration.rank(of: "model.layers.0.self_attn.v_proj") == 16)
    // A key matches whole components only where it begins at a dot: PEFT's `(.*\.)?(KEY)$`.
    #expect(try configuration.rank(of: "model.layers.0.self_attn.qq_proj") == 8)
    #expect(try configuration.rank(of: "model.layers.0.self_attn.q_proj.extra") == 8)
    #expect(
      try configuration.scaling(of: "model.layers.1.self_attn.q_proj", keptRank: 2) == 16)
  }

  @Test func adaLoRADividesByTheRankThatTrainingBeganWith() throws {
    let configuration = try configuration(
      #"""
      {"peft_type": "ADALORA", "init_r": 6, "lora_alpha": 8, "alpha_pattern": {"q_proj": 2},
       "rank_pattern": {"model.layers.0.q_proj.lora_E": [true, false, true]}}
      """#)
    #expect(configuration.keptRank(of: "model.layers.0.q_proj") == 2)
    #expect(configuration.keptRank(of: "model.layers.0.v_proj") == nil)
    #expect(try configuration.scaling(of: "model.layers.0.q_proj", keptRank: 2) == 8 / 6.00001)
  }

  @Test func qaLoRATellsItsGroups() throws {
    let set = try configuration(
      #"{"peft_type": "LORA", "use_qalora": true, "qalora_group_size": 32}"#)
    #expect(set.pooledGroupSize == 32)
    // PEFT's default, and what other adapters carry along.
    #expect(
      try configuration(#"{"peft_type": "LORA", "use_qalora": true}"#).pooledGroupSize == 16)
    #expect(
      try configuration(#"{"peft_type": "LORA", "qalora_group_size": 16}"#).pooledGroupSize == nil)
    // 3 · 6 groups, of 4 inputs each.
    #expect(AdapterConfiguration.pooledScaling(3, columns: 6, groupSize: 4) == 4.5)
  }

  @Test(
    arguments: [
      (
        #"{"peft_type": "LORA", "use_qalora": true, "qalora_group_size": 0}"#,
        "qalora_group_size is 0, expected more than 0"
      ),
      (
        #"{"peft_type": "LORA", "use_qalora": true, "use_dora": true}"#,
        "use_dora is set beside use_qalora, which has no such part"
      ),
      (
        #"{"peft_type": "LORA", "use_qalora": true, "target_parameters": ["w"]}"#,
        "target_parameters stand beside use_qalora"
      ),
      (#"[]"#, "the configuration is an array of 0, expected an object"),
      (#"{"r": 4}"#, "peft_type is missing, expected a string"),
      (
        #"{"peft_type": "LOHA"}"#,
        #"peft_type is "LOHA", peftool takes LORA, ADALORA, IA3, SHIRA, TRAINABLE_TOKENS; "#
          + "'peftool convert --to lora' makes LoRA of it"
      ),
      (#"{"peft_type": "LORA", "r": 0}"#, "the rank is 0, expected 1 to 1048576"),
      (#"{"peft_type": "LORA", "r": 4.0}"#, "r is 4.0, expected an integer"),
      (#"{"peft_type": "LORA", "r": "4"}"#, #"r is "4", expected an integer"#),
      (#"{"peft_type": "LORA", "r": true}"#, "r is true, expected an integer"),
      (
        #"{"peft_type": "LORA", "use_dora": "false"}"#,
        #"use_dora is "false", expected true or false"#
      ),
      (
        #"{"peft_type": "LORA", "rank_pattern": {"q(": 4}}"#,
        "rank_pattern: 'q(' is no regular expression"
      ),
      (
        #"{"peft_type": "LORA", "rank_pattern": {"q": -1}}"#,
        "rank_pattern.q is -1, expected 1 to 1048576"
      ),
      (
        #"{"peft_type": "LORA", "kasa_config": {}}"#,
        "kasa_config is set: KaSA, whose base was truncated, which cannot be merged"
      ),
      (
        #"{"peft_type": "LORA", "layer_replication": [[2, 1]]}"#,
        "layer_replication has [2, 1], expected [first, end] of layers"
      ),
      (
        #"{"peft_type": "LORA", "layer_replication": [[-1, 1]]}"#,
        "layer_replication has [-1, 1], expected [first, end] of layers"
      ),
      (
        #"{"peft_type": "LORA", "layer_replication": [[0, 9999], [0, 9999]]}"#,
        "layer_replication makes more than 10000 layers"
      ),
      (
        #"{"peft_type": "LORA", "target_modules": [1]}"#, "target_modules is 1, expected a string"
      ),
      (
        #"{"peft_type": "ADALORA", "rank_pattern": {"q": [1]}}"#,
        "rank_pattern.q is 1, expected true or false"
      ),
    ])
  func aFieldOfAnotherKindIsRefused(text: String, reason: String) {
    #expect {
      try configuration(text)
    } throws: {
      ($0 as? PeftoolError)?.reason == reason
    }
  }

  @Test func initializationsThatChangeTheBaseAreKnown() throws {
    for name in ["pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga"] {
      let text = #"{"peft_type": "LORA", "init_lora_weights": "\#(name)"}"#
      #expect(try configuration(text).baseMutation == name)
    }
    for value in ["true", "false", #""gaussian""#, #""eva""#, #""orthogonal""#] {
      let text = #"{"peft_type": "LORA", "init_lora_weights": \#(value)}"#
      #expect(try configuration(text).baseMutation == nil)
    }
  }
}

@Suite struct AdapterKeyTests {
  @Test(
    arguments: [
      ("model.q_proj.lora_A.weight", "model.q_proj", 0, AdapterKey.Part.loraA),
      ("model.q_proj.lora_B.bias", "model.q_proj", 0, .loraBias),
      ("model.q_proj.lora_E", "model.q_proj", 0, .loraE),
      ("model.wte.lora_embedding_B", "model.wte", 0, .embeddingB),
      ("model.q_proj.lora_magnitude_vector", "model.q_proj", 0, .magnitude),
      ("model.q_proj.lora_magnitude_vector.weight", "model.q_proj", 0, .magnitude),
      ("mlp.experts.base_layer.lora_A.weight", "mlp.experts", 1, .loraA),
      ("q_proj.base_layer.bias", "q_proj", 1, .own("bias")),
      ("lm_head.weight", "lm_head", 0, .own("weight")),
      ("wte.token_adapter.trainable_tokens_delta", "wte", 0, .tokens),
      ("k_proj.ia3_l", "k_proj", 0, .ia3),
      ("q.lora_monteclora_sampler.x", "q.lora_monteclora_sampler.x", 0, .ignored),
    ])
  func namesTellModuleAndPart(name: String, module: String, depth: Int, part: AdapterKey.Part) {
    let key = AdapterKey("base_model.model.\(name)")
    #expect(key?.module == module)
    #expect(key?.depth == depth)
    #expect(key?.part == part)
  }

  @Test(
    arguments: [
      "model.q_proj.lora_A.weight", "base_model.model.lora_A", "base_model.model.",
      "base_model.model.q_proj.lora_C.weight", "base_model.model.q_proj.lora_A.default.weight",
      "base_model.model.weight", "base_model.model.q_proj.",
    ])
  func otherNamesAreNoKeys(name: String) {
    #expect(AdapterKey(name) == nil)
  }
}

@Suite struct LayerNameTests {
  @Test func theLayersNumberIsTheOneBehindItsContainer() {
    let name = LayerName("model.layers.12.mlp.experts.3.w1.weight")
    #expect(name?.layer == 12)
    #expect(name?.renumbered(7) == "model.layers.7.mlp.experts.3.w1.weight")
    #expect(LayerName("transformer.h.0.attn.c_attn.weight")?.layer == 0)
    #expect(LayerName("model.embed_tokens.weight") == nil)
    #expect(LayerName("model.layers.norm.weight") == nil)
  }
}
