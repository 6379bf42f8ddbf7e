import Checkpoints
import Files
import Fixtures
import JSON
import LinearAlgebra
import Testing

@testable import Models

/// A model of two layers with random weights, and adapters with random factors.
struct TinyModel: Sendable, CustomTestStringConvertible {
  var family = "llama"
  var layerCount = 2
  /// Further fields of `config.json`.
  var fields = ""
  var isDoRA = false
  var dropout = 0.0
  /// The ends of the paths of the layers with an adapter; all but the output embedding if empty.
  var modules: [String] = []
  /// What is trained of its own weights.
  var training = TrainedWeights.none

  var testDescription: String {
    "\(family) \(fields) \(isDoRA ? "DoRA" : "LoRA") \(modules.joined(separator: ",")) "
      + "\(training.modules.joined(separator: ",")) \(training.tokens)"
  }

  private static let (hidden, inner, heads, keyHeads, headSize, vocabulary) = (8, 10, 4, 2, 4, 13)

  var config: String {
    """
    {"model_type": "\(family)", "vocab_size": \(Self.vocabulary), "hidden_size": \(Self.hidden),
     "intermediate_size": \(Self.inner), "num_hidden_layers": \(layerCount),
     "num_attention_heads": \(Self.heads), "num_key_value_heads": \(Self.keyHeads),
     "head_dim": \(Self.headSize), "max_position_embeddings": 64, "rms_norm_eps": 1e-3
     \(fields.isEmpty ? "" : ", ")\(fields)}
    """
  }

  /// All tensors that the configuration asks for.
  func tensors() throws -> [Values] {
    let configuration = try LlamaConfiguration(JSON(parsing: Array(config.utf8)))
    var tensors: [Values] = []
    func add(_ name: String, _ shape: [Int], around center: Float = 0) {
      let seed = name.utf8.reduce(7) { $0 &* 31 &+ Int($1) }
      let numbers = randoms(shape.reduce(1, *), seed: seed).map { center + $0 * 0.5 }
      tensors.append(Values(name, shape, numbers))
    }
    func linear(_ name: String, _ outputs: Int, _ inputs: Int, hasBias: Bool) {
      add(name + ".weight", [outputs, inputs])
      if hasBias { add(name + ".bias", [outputs]) }
    }
    let (hidden, inner) = (Self.hidden, Self.inner)
    let (queries, keys) = (Self.heads * Self.headSize, Self.keyHeads * Self.headSize)
    let biases = configuration.biases
    add("model.embed_tokens.weight", [Self.vocabulary, hidden])
    for place in 0..<layerCount {
      let path = "model.layers.\(place)."
      add(path + "input_layernorm.weight", [hidden], around: 1)
      add(path + "post_attention_layernorm.weight", [hidden], around: 1)
      linear(path + "self_attn.q_proj", queries, hidden, hasBias: biases.qkv)
      linear(path + "self_attn.k_proj", keys, hidden, hasBias: biases.qkv)
      linear(path + "self_attn.v_proj", keys, hidden, hasBias: biases.qkv)
      linear(path + "self_attn.o_proj", hidden, queries, hasBias: biases.o)
      linear(path + "mlp.gate_proj", inner, hidden, hasBias: biases.mlp)
      linear(path + "mlp.up_proj", inner, hidden, hasBias: biases.mlp)
      linear(path + "mlp.down_proj", hidden, inner, hasBias: biases.mlp)
      guard configuration.family == .qwen3 else { continue }
      add(path + "self_attn.q_norm.weight", [Self.headSize], around: 1)
      add(path + "self_attn.k_norm.weight", [Self.headSize], around: 1)
    }
    add("model.norm.weight", [hidden], around: 1)
    if !configuration.isTied { add("lm_head.weight", [Self.vocabulary, hidden]) }
    return tensors
  }

  /// Reads it from a folder of its own.
  func load(quantizing: Bool = false) throws -> Llama {
    let scratch = try Scratch()
    try scratch.write("config.json", config)
    try scratch.write("model.safetensors", tensors())
    return try Llama(
      Checkpoint(opening: scratch.path), quantizing: quantizing, training: training,
      adapter: adapter)
  }

  private func adapter(
    _ module: String, _ weight: FrozenWeight, _: FrozenWeight
  ) throws(PeftoolError) -> LoRA? {
    let isChosen =
      modules.isEmpty ? module != "lm_head" : modules.contains { module.hasSuffix($0) }
    guard isChosen else { return nil }
    let seed = module.utf8.reduce(9) { $0 &* 31 &+ Int($1) }
    let magnitude = Rows(
      randoms(weight.outputs, seed: seed + 2).map { 1.5 + $0 * 0.5 }, columns: weight.outputs)
    return LoRA(
      a: TrainableParameter("\(module).a", randomRows(2, weight.inputs, seed: seed)),
      b: TrainableParameter("\(module).b", randomRows(2, weight.outputs, seed: seed + 1)),
      magnitude: isDoRA ? TrainableParameter("\(module).m", magnitude) : nil, scaling: 0.5,
      dropout: dropout)
  }
}

extension Llama {
  /// What is trained, in the order of the layers.
  var parameters: [TrainableParameter] {
    adapters.flatMap { $0.adapter.parameters } + trainedWeights.map(\.parameter)
  }

  /// All gradients in that order, which become zeros.
  func takeGradients() -> [Float] {
    let gradients = parameters.flatMap { $0.gradient.values }
    for parameter in parameters { parameter.gradient.clear() }
    return gradients
  }

  /// The losses of a batch and their gradients, with memory of their own.
  func run(
    _ batch: TokenBatch, threads: Int = 2, keeping: LossPass.Keeping = .everything
  ) -> (losses: [Double], gradients: [Float]) {
    let pass = LossPass(
      self, team: ThreadTeam(count: threads), tokens: batch.tokens.count,
      longest: batch.texts.map(\.count).max() ?? 1, keeping: keeping)
    let losses = pass.addGradients(batch, scale: 0.25)
    return (losses, takeGradients())
  }
}

/// Texts of random tokens, of which some are no labels.
func randomBatch(_ lengths: [Int], seed: Int = 1, vocabulary: Int = 13) -> TokenBatch {
  var numbers = SplitMix64(seed: seed)
  return TokenBatch(
    lengths.map { length in
      (
        (0..<length).map { _ in Int32.random(in: 0..<Int32(vocabulary), using: &numbers) },
        (0..<length).map { $0 % 4 != 1 }
      )
    })
}
