package import JSON

/// The `adapter_config.json` of PEFT's SHiRA, with every key that PEFT 0.21.2 saves.
package enum SparseConfiguration {
  /// The configuration with some values, and PEFT's defaults for the rest.
  package static func json(_ own: [String: JSON]) -> JSON {
    let defaults: [(String, JSON)] = [
      ("auto_mapping", .null), ("base_model_name_or_path", .null),
      ("fan_in_fan_out", .bool(false)), ("inference_mode", .bool(true)),
      ("init_weights", .bool(true)), ("mask_type", .string("random")), ("modules_to_save", .null),
      ("peft_type", .string(Method.shira.rawValue)),
      ("peft_version", .string(PEFTConfiguration.version)), ("r", .number(32)),
      ("random_seed", .null), ("revision", .null), ("target_modules", .null),
      ("task_type", .null),
    ]
    precondition(own.keys.allSatisfy { key in defaults.contains { $0.0 == key } }, "a known key")
    return .object(defaults.map { .init($0.0, own[$0.0] ?? $0.1) })
  }
}
