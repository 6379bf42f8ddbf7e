package import Files
import Quantization
package import Tensors

/// What a model that is trained is made up of, by sizes alone: of one that is in memory, or of one that
/// is planned and of which only `config.json` is known.
///
/// All that is said of memory before it is taken follows from it.
package struct ModelSize: Equatable, Sendable {
  /// The shape.
  package let configuration: LlamaConfiguration
  /// The bytes of all matrices that are frozen.
  package var frozenByteCount = 0
  /// The adapters of the linear layers of one input, from the model's input on.
  package var groups: [[AdapterSize]] = []
  /// The model's own weights that are trained.
  package var trainedWeights: [Weight] = []
  /// Whether what o_proj or down_proj give is kept by itself, for DoRA.
  var keepsOutputs = false

  /// A weight that is trained whole.
  package struct Weight: Equatable, Sendable {
    /// The shape: (outputs, inputs), or (count) of a norm and a bias.
    package let shape: [Int]
    /// Whether it is a matrix of the layers.
    package let isOfLayer: Bool
    /// Whether its gradient is in the memory of another one's, which counts there.
    package let isGradientElsewhere: Bool
    /// Whether it is the output embedding, where both ends are one table that table.
    package let isHead: Bool

    /// The numbers.
    package var elementCount: Int { shape.reduce(1, *) }
  }

  /// All adapters.
  package var adapters: [AdapterSize] { groups.flatMap(\.self) }

  /// The trained numbers of each parameter: of the adapters, then of the model's own weights.
  package var parameterCounts: [Int] {
    adapters.flatMap(\.parameterCounts) + trainedWeights.map(\.elementCount)
  }

  /// The bytes of what is trained, with what an adapter has beside it, but for gradients.
  package var trainedByteCount: Int {
    adapters.reduce(0) { $0 + $1.valueByteCount }
      + 4 * trainedWeights.reduce(0) { $0 + $1.elementCount }
  }

  /// The bytes of all gradients, those that take turns at one place once.
  package var gradientByteCount: Int {
    adapters.reduce(0) { $0 + $1.gradientByteCount }
      + 4 * trainedWeights.reduce(0) { $0 + ($1.isGradientElsewhere ? 0 : $1.elementCount) }
  }

  /// The largest sum of ranks of the layers of one input.
  var largestRank: Int { groups.map { $0.reduce(0) { $0 + $1.rank } }.max() ?? 0 }

  /// The largest sum of inputs, over the layers of one input, of which adapters leave some out.
  var maskedInputs: Int {
    groups.map { $0.reduce(0) { $0 + ($1.dropsInputs ? $1.inputs : 0) } }.max() ?? 0
  }
}

extension Llama {
  /// Its sizes.
  package var size: ModelSize {
    var size = ModelSize(configuration: configuration)
    size.frozenByteCount = byteCount
    size.groups = groups.map { $0.projections.compactMap { $0.adapter?.size } }
    size.keepsOutputs = layers.contains(where: \.keepsOutputs)
    let matrices = Set(trainedMatrices.map { ObjectIdentifier($0) })
    var places: Set<ObjectIdentifier> = []
    let head = (configuration.isTied ? TrainedWeights.embedding : TrainedWeights.head) + ".weight"
    size.trainedWeights = trainedWeights.map { weight in
      let parameter = weight.parameter
      return ModelSize.Weight(
        shape: weight.shape, isOfLayer: matrices.contains(ObjectIdentifier(parameter)),
        isGradientElsewhere: !places.insert(ObjectIdentifier(parameter.gradient.storage)).inserted,
        isHead: parameter.name.hasSuffix(head))
    }
    return size
  }
}

extension ModelSize {
  /// How the layers' matrices lie in memory where they are frozen.
  package enum Form: Equatable, Sendable {
    /// Numbers of a type, which the embeddings have in any case.
    case numbers
    /// bitsandbytes' codes of 4 bits in blocks of 64, whose scales are kept in f32.
    case nf4
    /// LLM.int8: codes of 8 bits, and a scale a row.
    case int8
    /// INT4 by groups of inputs; of whole rows where there is no size.
    case groups(size: Int?)

    /// The bytes of a matrix.
    func byteCount(_ dtype: DType, _ outputs: Int, _ inputs: Int) -> Int {
      switch self {
      case .numbers: dtype.bitCount / 8 * outputs * inputs
      case .nf4: FrozenWeight.byteCount(ofNF4: outputs * inputs)
      case .int8: outputs * inputs + 4 * outputs
      case .groups(let size):
        (outputs * inputs + 1) / 2
          + 8 * outputs * GroupInt4.groupCount(of: inputs, groupSize: size ?? inputs)
      }
    }
  }

  /// A model as `Llama` would load it.
  ///
  /// - Parameters:
  ///   - dtype: the type of what is not in codes.
  ///   - training: what of it is trained; modules, or all of it.
  ///   - adapter: the adapter of a linear layer, if it has one.
  /// - Throws: `damaged` for a model that no memory holds; what `adapter` throws.
  package init(
    planning configuration: LlamaConfiguration, dtype: DType, form: Form, training: TrainedWeights,
    adapter: (LlamaConfiguration.Linear) throws(PeftoolError) -> AdapterSize?
  ) throws(PeftoolError) {
    precondition(training.tokens.isEmpty, "rows of tokens are not planned")
    try configuration.checkSize()
    self.init(configuration: configuration)
    let hidden = configuration.hiddenSize
    var gradients: Set<String> = []
    func own(_ shape: [Int], matrix name: String? = nil, isHead: Bool = false) {
      // Of the layers' matrices those of one name share a gradient.
      let isShared = training.sharesGradients && name != nil
      trainedWeights.append(
        Weight(
          shape: shape, isOfLayer: name != nil,
          isGradientElsewhere: isShared && !gradients.insert(name ?? "").inserted, isHead: isHead))
    }
    func norm(_ module: String, _ count: Int) { if training.contains(module) { own([count]) } }
    let table = [configuration.vocabularySize, hidden]
    let tableByteCount = dtype.bitCount / 8 * table[0] * table[1]
    if training.containsTable(isTied: configuration.isTied) {
      own(table, isHead: configuration.isTied)
    } else {
      frozenByteCount += tableByteCount
    }
    for place in 0..<configuration.layerCount {
      let path = "model.layers.\(place)"
      norm(path + ".input_layernorm", hidden)
      for (number, group) in configuration.linearGroups.enumerated() {
        var adapters: [AdapterSize] = []
        for layer in group {
          let placed = layer.placed(in: path)
          if training.contains(placed.module) {
            own([layer.outputs, layer.inputs], matrix: layer.module)
            if layer.hasBias, training.trainsVectors { own([layer.outputs]) }
            continue
          }
          frozenByteCount += form.byteCount(dtype, layer.outputs, layer.inputs)
          guard let size = try adapter(placed) else { continue }
          adapters.append(size)
          // o_proj and down_proj, each of which is alone.
          if size.hasMagnitude, group.count == 1 { keepsOutputs = true }
        }
        groups.append(adapters)
        if number == 0, configuration.family == .qwen3 {
          norm(path + ".self_attn.q_norm", configuration.headSize)
          norm(path + ".self_attn.k_norm", configuration.headSize)
        }
        if number == 1 { norm(path + ".post_attention_layernorm", hidden) }
      }
    }
    norm("model.norm", hidden)
    groups.append([])
    guard !configuration.isTied else { return }
    if training.contains(TrainedWeights.head) {
      own(table, isHead: true)
    } else {
      frozenByteCount += tableByteCount
    }
  }
}
