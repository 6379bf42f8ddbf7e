package import Tensors

/// What a tensor of an adapter is for, as its name tells.
///
/// Names are PEFT's: `base_model.model.`, the module's path, then what is listed here.
package struct AdapterKey: Hashable, Sendable {
  /// The module's path in the model, without the wrappers' `base_layer`.
  package let module: String
  /// How many `base_layer` stood at the end of the path: the depth of nested wrappers.
  package let depth: Int
  /// What the tensor is for.
  package let part: Part

  /// The tensors that an adapter has for a module.
  package enum Part: Hashable, Sendable {
    case loraA, loraB, loraBias, loraE
    case embeddingA, embeddingB
    case magnitude
    case ia3
    case shiraWeight, shiraIndices
    case tokens
    /// Of no use for the merged weights: buffers of VeLoRA and MonteCLoRA.
    case ignored
    /// A parameter's own full values: `weight`, `bias`, or any other name.
    case own(String)
  }

  /// What PEFT puts before every module's path.
  package static let prefix = "base_model.model."

  private static let suffixes: [(String, Part)] = [
    (".lora_A.weight", .loraA), (".lora_B.weight", .loraB), (".lora_B.bias", .loraBias),
    (".lora_A", .loraA), (".lora_B", .loraB), (".lora_E", .loraE),
    (".lora_embedding_A", .embeddingA), (".lora_embedding_B", .embeddingB),
    (".lora_magnitude_vector", .magnitude), (".lora_magnitude_vector.weight", .magnitude),
    (".ia3_l", .ia3), (".shira_weight", .shiraWeight), (".shira_indices", .shiraIndices),
    (".token_adapter.trainable_tokens_delta", .tokens),
    (".trainable_tokens_delta", .tokens), (".lora_velora_embed", .ignored),
  ]

  /// Reads a name; nil where it is none of PEFT's.
  package init?(_ name: String) {
    guard name.hasPrefix(Self.prefix) else { return nil }
    let path = String(name.dropFirst(Self.prefix.count))
    var module: Substring
    if let (suffix, part) = Self.suffixes.first(where: { path.hasSuffix($0.0) }) {
      module = path.dropLast(suffix.count)
      self.part = part
    } else if path.contains(".lora_monteclora_sampler.") {
      module = path[...]
      part = .ignored
    } else {
      guard let dot = path.lastIndex(of: "."), !path.contains(".lora_") else { return nil }
      module = path[..<dot]
      let parameter = String(path[path.index(after: dot)...])
      guard !parameter.isEmpty else { return nil }
      part = .own(parameter)
    }
    var depth = 0
    while module.hasSuffix(".base_layer") {
      module = module.dropLast(".base_layer".count)
      depth += 1
    }
    guard !module.isEmpty else { return nil }
    self.module = String(module)
    self.depth = depth
  }
}

extension AdapterKey.Part {
  /// Whether a tensor of this part may have a dtype: numbers, or whole ones for places.
  package func allows(_ dtype: DType) -> Bool {
    self == .shiraIndices ? dtype == .i32 || dtype == .i64 : dtype.isComputable
  }

  /// The dtypes that it may have, for messages.
  package var dtypesText: String {
    self == .shiraIndices ? "I32 or I64" : "F64, F32, F16, BF16, F8_E4M3 or F8_E5M2"
  }
}
