package import JSON

/// The `adapter_config.json` of PEFT's LoRA, with every key that PEFT 0.21.2 saves.
package enum PEFTConfiguration {
  /// The version of PEFT whose keys these are.
  static let version = "0.21.2"

  /// The configuration with some values, and PEFT's defaults for the rest.
  package static func json(_ own: [String: JSON]) -> JSON {
    json(own, defaults)
  }

  /// The same of AdaLoRA.
  package static func adaLoRA(_ own: [String: JSON]) -> JSON {
    json(own.merging(["peft_type": .string("ADALORA")]) { $1 }, defaults + adaLoRADefaults)
  }

  private static func json(_ own: [String: JSON], _ defaults: [(String, JSON)]) -> JSON {
    precondition(own.keys.allSatisfy { key in defaults.contains { $0.0 == key } }, "a known key")
    return .object(defaults.map { .init($0.0, own[$0.0] ?? $0.1) })
  }

  /// A whole number without a point, where it is one that every reader takes for exact.
  package static func number(_ value: Double) -> JSON {
    value == value.rounded() && abs(value) < 1e15 ? .number(Int(value)) : .number(value)
  }

  private static var adaLoRADefaults: [(String, JSON)] {
    [
      ("beta1", .number(0.85)), ("beta2", .number(0.85)), ("deltaT", .number(1)),
      ("init_r", .number(12)), ("orth_reg_weight", .number(0.5)), ("target_r", .number(8)),
      ("tfinal", .number(0)), ("tinit", .number(0)), ("total_step", .null),
    ]
  }

  // Made anew each time: a stored one would look like a leak, as the boxes of its values are held by
  // marked pointers.
  private static var defaults: [(String, JSON)] {
    [
      ("alpha_pattern", .object([])), ("auto_mapping", .null),
      ("base_model_name_or_path", .null), ("bias", .string("none")),
      ("ensure_weight_tying", .bool(false)), ("fan_in_fan_out", .bool(false)),
      ("inference_mode", .bool(true)), ("init_lora_weights", .bool(true)),
      ("loftq_config", .object([])), ("lora_alpha", .number(8)), ("lora_bias", .bool(false)),
      ("lora_dropout", .number("0.0")), ("megatron_core", .string("megatron.core")),
      ("modules_to_save", .null), ("peft_type", .string("LORA")),
      ("peft_version", .string(version)), ("qalora_group_size", .number(16)), ("r", .number(8)),
      ("rank_pattern", .object([])), ("target_modules", .null), ("task_type", .null),
      ("use_dora", .bool(false)), ("use_qalora", .bool(false)), ("use_rslora", .bool(false)),
    ]
      + [
        "alora_invocation_tokens", "arrow_config", "corda_config", "eva_config", "exclude_modules",
        "kasa_config", "layer_replication", "layers_pattern", "layers_to_transform",
        "lora_ga_config", "megatron_config", "monteclora_config", "revision",
        "target_parameters", "trainable_token_indices", "use_bdlora", "velora_config",
      ].map { ($0, .null) }
  }
}
