import Checkpoints
import Files
import JSON
import Reports
import Tensors

extension ModelFacts {
  /// The facts that a GGUF model's metadata has, under the names of `config.json`.
  init(_ model: GGUFFile) {
    let header = model.header
    let architecture = header["general.architecture"]?.text
    var members: [JSON.Member] = []
    func add(_ name: String, _ key: String) {
      guard let architecture, let value = header["\(architecture).\(key)"]?.int else { return }
      members.append(.init(name, .number(value)))
    }
    if let architecture { members.append(.init("model_type", .string(architecture))) }
    add("num_hidden_layers", "block_count")
    add("hidden_size", "embedding_length")
    add("intermediate_size", "feed_forward_length")
    add("num_attention_heads", "attention.head_count")
    add("num_key_value_heads", "attention.head_count_kv")
    add("num_local_experts", "expert_count")
    if let embedding = model.tensors.first(where: { $0.name == "token_embd.weight" }) {
      if let rows = embedding.shape.first { members.append(.init("vocab_size", .number(rows))) }
      let hasOutput = model.tensors.contains { $0.name == "output.weight" }
      members.append(.init("tie_word_embeddings", .bool(!hasOutput)))
    }
    self.init(.object(members))
  }
}

extension GGUFFile {
  /// What `inspect` tells of a GGUF model only.
  func append(to facts: inout Facts) {
    facts.append("name", header["general.name"]?.summary.printable)
    facts.append("adapter", adapterText)
    facts.append("quantization", quantizationText)
    facts.append("tokenizer", tokenizerText)
  }

  /// Of an adapter in llama.cpp's form: its method, alpha, ranks and the number of its modules.
  private var adapterText: String? {
    guard header["general.type"]?.text == "adapter" else { return nil }
    let method = header["adapter.type"]?.summary.printable ?? "of an unknown kind"
    let alpha = header["adapter.lora.alpha"]?.summary.printable
    let pairs = tensors.filter { $0.name.hasSuffix(".lora_b") }
    let ranks = Set(pairs.compactMap(\.shape.last)).sorted()
    return [
      method, alpha.map { "alpha \($0)" },
      ranks.isEmpty ? nil : "rank \(ranks.map(String.init).joined(separator: ", "))",
      pairs.count.text(of: "module"),
    ].compactMap(\.self).joined(separator: ", ")
  }

  /// llama.cpp's name for the mixture, and what it comes to.
  private var quantizationText: String? {
    let elements = tensors.reduce(0) { $0 + $1.elementCount }
    guard elements > 0 else { return nil }
    let bytes = tensors.reduce(0) { $0 + $1.byteCount }
    let bits = "\((Double(bytes) * 8 / Double(elements)).fixed(2)) bits a parameter"
    guard let type = header["general.file_type"]?.int else { return bits }
    return "\(Self.mixtures[type] ?? "file type \(type)"), \(bits)"
  }

  private var tokenizerText: String? {
    guard case .array(let tokens) = header["tokenizer.ggml.tokens"] else { return nil }
    var parts: [String] = []
    if let model = header["tokenizer.ggml.model"]?.summary {
      let pre = header["tokenizer.ggml.pre"].map { " (\($0.summary.printable))" } ?? ""
      parts.append(model.printable + pre)
    }
    parts.append(tokens.count.text(of: "token"))
    if case .array(let merges) = header["tokenizer.ggml.merges"] {
      parts.append(merges.count.text(of: "merge"))
    }
    if header["tokenizer.chat_template"] != nil { parts.append("chat template") }
    return parts.joined(separator: ", ")
  }

  /// llama.cpp's `llama_ftype`.
  private static let mixtures: [Int: String] = [
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
    39: "NVFP4", 40: "Q1_0",
  ]
}
