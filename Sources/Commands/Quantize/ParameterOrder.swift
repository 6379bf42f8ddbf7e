/// The order of a model's parameters in transformers, by which it fills shards.
///
/// A checkpoint's files are sorted by name; the order in which the classes register their modules
/// is known here for the decoders of the Llama and the GPT-2 family. Other names sort by number and
/// name, behind those known: their shards are cut elsewhere, but hold the same tensors.
struct ParameterOrder: Comparable {
  private let ranks: [(rank: Int, number: Int, name: String)]

  init(_ name: String) {
    ranks = name.split(separator: ".").map { part in
      if let number = Int(part) { return (0, number, "") }
      return (Self.known[String(part)] ?? Self.known.count, 0, String(part))
    }
  }

  static func == (a: ParameterOrder, b: ParameterOrder) -> Bool { !(a < b) && !(b < a) }

  static func < (a: ParameterOrder, b: ParameterOrder) -> Bool {
    for (x, y) in zip(a.ranks, b.ranks) where x != y { return x < y }
    return a.ranks.count < b.ranks.count
  }

  /// Siblings in the order in which the classes name them.
  private static let known: [String: Int] = {
    let names = [
      "model", "transformer", "gpt_neox",
      "embed_tokens", "wte", "wpe", "embed_in", "layers", "h", "norm", "ln_f", "final_layer_norm",
      "lm_head", "embed_out", "score",
      "ln_1", "attn", "ln_2", "self_attn", "mlp", "block_sparse_moe", "input_layernorm",
      "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
      "q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm", "c_attn", "c_fc", "c_proj",
      "q_attn", "gate", "experts", "shared_expert", "shared_expert_gate", "gate_proj", "up_proj",
      "down_proj", "w1", "w2", "w3", "gate_up_proj",
      "weight", "bias",
    ]
    return Dictionary(uniqueKeysWithValues: names.enumerated().map { ($0.element, $0.offset) })
  }()
}
