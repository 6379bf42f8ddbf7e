package import Files

extension LlamaConfiguration {
  /// A linear layer, by its sizes.
  package struct Linear: Equatable, Sendable {
    /// The module's path, within a layer or the model.
    package let module: String
    /// The rows of its weight.
    package let outputs: Int
    /// The columns.
    package let inputs: Int
    /// Whether it has a bias.
    package let hasBias: Bool

    package init(module: String, outputs: Int, inputs: Int, hasBias: Bool) {
      self.module = module
      self.outputs = outputs
      self.inputs = inputs
      self.hasBias = hasBias
    }

    /// The same in a layer of this path.
    func placed(in path: String) -> Linear {
      Linear(module: "\(path).\(module)", outputs: outputs, inputs: inputs, hasBias: hasBias)
    }
  }

  /// The linear layers of one of the model's layers, those of one input together.
  package var linearGroups: [[Linear]] {
    let (queries, keys) = (headCount * headSize, keyHeadCount * headSize)
    func linear(_ name: String, _ outputs: Int, _ inputs: Int, _ hasBias: Bool) -> Linear {
      Linear(module: name, outputs: outputs, inputs: inputs, hasBias: hasBias)
    }
    return [
      [
        linear("self_attn.q_proj", queries, hiddenSize, biases.qkv),
        linear("self_attn.k_proj", keys, hiddenSize, biases.qkv),
        linear("self_attn.v_proj", keys, hiddenSize, biases.qkv),
      ],
      [linear("self_attn.o_proj", hiddenSize, queries, biases.o)],
      [
        linear("mlp.gate_proj", intermediateSize, hiddenSize, biases.mlp),
        linear("mlp.up_proj", intermediateSize, hiddenSize, biases.mlp),
      ],
      [linear("mlp.down_proj", hiddenSize, intermediateSize, biases.mlp)],
    ]
  }

  /// The numbers of all layers' matrices.
  package var layerElementCount: Int {
    layerCount * linearGroups.joined().reduce(0) { $0 + $1.outputs * $1.inputs }
  }

  /// The numbers of one embedding.
  package var tableElementCount: Int { vocabularySize * hiddenSize }

  /// A model of more numbers than this is a mistake of its `config.json`: 32 TB of f32.
  private static let maximumElementCount = 1e13

  /// Refuses numbers of which no model is made, so that what follows from them can be counted.
  ///
  /// - Throws: `damaged`.
  package func checkSize() throws(PeftoolError) {
    let hidden = Double(hiddenSize)
    let attention = 2 * Double(headSize) * Double(headCount + keyHeadCount) * hidden
    let layer = attention + 3 * hidden * Double(intermediateSize)
    let count = Double(layerCount) * layer + 2 * Double(vocabularySize) * hidden
    guard count > Self.maximumElementCount else { return }
    throw PeftoolError(
      .damaged, "makes up a model of \(count) numbers, expected \(Self.maximumElementCount) at most"
    )
  }
}
