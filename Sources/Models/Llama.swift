package import Checkpoints
package import Files
import JSON
import LinearAlgebra
import Quantization
import Tensors

/// A causal language model of the Llama family, as transformers 5 computes it, in f32.
///
/// Its weights are in memory as they lie in the file. Source: `modeling_{llama,mistral,qwen2,
/// qwen3}.py`.
package final class Llama: Sendable {
  /// The shape.
  package let configuration: LlamaConfiguration
  let embedding: TokenEmbedding
  /// The layers, from the input on.
  let layers: [DecoderLayer]
  let norm: RMSNorm
  /// The output embedding.
  let head: ProjectionGroup
  /// What is trained of its own weights, from the input on.
  package let trainedWeights: [TrainedWeight]

  /// Loads a model.
  ///
  /// - Parameters:
  ///   - checkpoint: the model's tensors, with its `config.json`; bitsandbytes' codes stay codes.
  ///   - training: what of it is trained; a module that is trained whole is asked no adapter for.
  ///   - own: what is read in the place of the model's own tensors.
  ///   - shared: the checkpoint's tensors that are in memory already, which are not read again; what
  ///     is read joins them. Nothing is trained then.
  ///   - adapter: the adapter of a linear layer, if it has one: by its path, its weight, and the
  ///     weight before it was quantized.
  /// - Throws: `unsupported` and `damaged` for a configuration or tensors that do not make up such a
  ///   model, with the tensor's name; `different` and `unsupported` for weights that are not there
  ///   or cannot be trained; `io`; what `adapter` throws.
  package convenience init(
    _ checkpoint: Checkpoint,
    quantizing: Bool = false,
    training: TrainedWeights = .none,
    replacing own: OwnTensors = .none,
    sharing shared: SharedTensors? = nil,
    adapter: (
      _ module: String, _ weight: FrozenWeight, _ original: FrozenWeight
    ) throws(PeftoolError) -> LoRA? = { _, _, _ in nil }
  ) throws(PeftoolError) {
    let configuration = try LlamaConfiguration(of: checkpoint)
    try self.init(
      configuration, ModelWeights(checkpoint, configuration, training, own, sharing: shared),
      quantizing, adapter)
  }

  private init(
    _ configuration: LlamaConfiguration, _ weights: ModelWeights, _ quantizing: Bool,
    _ adapter: (String, FrozenWeight, FrozenWeight) throws(PeftoolError) -> LoRA?
  ) throws(PeftoolError) {
    var weights = weights
    self.configuration = configuration
    let epsilon = Float(configuration.epsilon)
    let hidden = configuration.hiddenSize
    let (queries, keys) = (
      configuration.headCount * configuration.headSize,
      configuration.keyHeadCount * configuration.headSize
    )

    func projection(
      _ module: String, _ outputs: Int, _ inputs: Int, _ hasBias: Bool,
      isQuantized: Bool = quantizing
    ) throws(PeftoolError) -> Projection {
      let original = try weights.matrix(module + ".weight", outputs, inputs)
      var weight = original
      if isQuantized, !weight.isQuantized {
        weight = try weight.quantized(.nf4, blockSize: 64, isNested: true)
      }
      let bias = hasBias ? try weights.vector(module + ".bias", outputs) : nil
      guard weights.isTrained(module) else {
        return Projection(
          module, weight, bias: bias, adapter: try adapter(module, weight, original))
      }
      try weights.checkNoAdapter(besides: module) { () throws(PeftoolError) in
        try adapter(module, weight, original)
      }
      let whole = try weights.makeTrained(module, whole: weight)
      guard weights.training.trainsVectors else {
        return Projection(module, .whole(whole), bias: bias)
      }
      return Projection(
        module, .whole(whole),
        trainedBias: bias.map { weights.makeTrained(module + ".bias", vector: $0) })
    }
    func norm(_ module: String, _ size: Int) throws(PeftoolError) -> RMSNorm {
      let weight = try weights.vector(module + ".weight", size)
      guard weights.isTrained(module) else { return RMSNorm(weight: weight, epsilon: epsilon) }
      return RMSNorm(
        trained: weights.makeTrained(module + ".weight", vector: weight), epsilon: epsilon)
    }

    let table = try weights.table(configuration)
    embedding = TokenEmbedding(table: table, padding: configuration.paddingRow)
    var layers: [DecoderLayer] = []
    for place in 0..<configuration.layerCount {
      let path = "model.layers.\(place)"
      let own = path + ".self_attn"
      let biases = configuration.biases
      let inner = configuration.intermediateSize
      layers.append(
        DecoderLayer(
          inputNorm: try norm(path + ".input_layernorm", hidden),
          attentionInputs: ProjectionGroup(projections: [
            try projection(own + ".q_proj", queries, hidden, biases.qkv),
            try projection(own + ".k_proj", keys, hidden, biases.qkv),
            try projection(own + ".v_proj", keys, hidden, biases.qkv),
          ]),
          headNorms: configuration.family == .qwen3
            ? (
              try norm(own + ".q_norm", configuration.headSize),
              try norm(own + ".k_norm", configuration.headSize)
            ) : nil,
          attention: Attention(
            heads: configuration.headCount, keyHeads: configuration.keyHeadCount,
            headSize: configuration.headSize, window: configuration.windows[place],
            scaling: Float(1 / Double(configuration.headSize).squareRoot())),
          attentionOutput: ProjectionGroup(projections: [
            try projection(own + ".o_proj", hidden, queries, biases.o)
          ]),
          outputNorm: try norm(path + ".post_attention_layernorm", hidden),
          gates: ProjectionGroup(projections: [
            try projection(path + ".mlp.gate_proj", inner, hidden, biases.mlp),
            try projection(path + ".mlp.up_proj", inner, hidden, biases.mlp),
          ]),
          down: ProjectionGroup(projections: [
            try projection(path + ".mlp.down_proj", hidden, inner, biases.mlp)
          ])))
    }
    self.layers = layers
    self.norm = try norm("model.norm", hidden)
    if configuration.isTied {
      head = ProjectionGroup(projections: [
        try weights.tiedHead(table) { (weight) throws(PeftoolError) in
          try adapter(TrainedWeights.head, weight, weight)
        }
      ])
    } else {
      head = ProjectionGroup(projections: [
        try projection(
          TrainedWeights.head, configuration.vocabularySize, hidden, false, isQuantized: false)
      ])
    }
    trainedWeights = weights.trainedWeights
    try weights.checkAllUsed()
  }

  /// All linear layers, from the input on.
  package var projections: [Projection] {
    layers.flatMap(\.projections) + head.projections
  }

  /// The adapters that are there, with the paths of their modules.
  package var adapters: [(module: String, adapter: LoRA)] {
    projections.compactMap { projection in
      projection.adapter.map { (projection.name, $0) }
    }
  }

  /// The layers' matrices that are trained whole, from the input on.
  package var trainedMatrices: [TrainableParameter] { layers.flatMap(\.trainedMatrices) }

  /// The bytes of all matrices that are frozen.
  package var byteCount: Int {
    let tied = configuration.isTied ? 0 : head.projections[0].weight.byteCount
    return embedding.table.byteCount + tied
      + layers.flatMap(\.projections).reduce(0) { $0 + $1.weight.byteCount }
  }

  /// The bytes that a model's weights will take, as far as the checkpoint's list of tensors tells.
  package static func byteCount(of checkpoint: Checkpoint, quantizing: Bool = false) -> Int {
    checkpoint.tensors.reduce(0) { sum, tensor in
      let isQuantized =
        quantizing && tensor.shape.count == 2 && tensor.name.contains(".layers.")
        && tensor.dtype.isComputable
      let codes = isQuantized ? FrozenWeight.byteCount(ofNF4: tensor.elementCount) : nil
      return sum + (codes ?? tensor.byteCount)
    }
  }

  /// The linear layers by their inputs, from the model's input on.
  var groups: [ProjectionGroup] {
    layers.flatMap { [$0.attentionInputs, $0.attentionOutput, $0.gates, $0.down] } + [head]
  }

  /// The largest sum of inputs, over the layers of one input, of which adapters leave some out.
  package var maskedInputs: Int { size.maskedInputs }

  /// The largest sum of ranks of the layers of one input.
  package var largestRank: Int { size.largestRank }
}

extension LlamaConfiguration {
  /// Reads the `config.json` beside a checkpoint.
  ///
  /// - Throws: `damaged` where there is none; as the other, with its path.
  package init(of checkpoint: Checkpoint) throws(PeftoolError) {
    guard let json = try checkpoint.modelConfig else {
      throw PeftoolError(
        .damaged, "has no config.json beside it, which tells what model it is",
        path: checkpoint.path)
    }
    do throws(PeftoolError) {
      try self.init(json)
    } catch {
      throw error.at(path: Folder.path(checkpoint.directory ?? checkpoint.path, "config.json"))
    }
  }
}
