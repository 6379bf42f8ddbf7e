extension LossPass {
  /// The bytes that a pass over so many tokens, in texts of so many, takes beside the model.
  package static func byteCount(
    _ model: Llama, tokens: Int, longest: Int, keeping: Keeping, threads: Int
  ) -> Int {
    byteCount(
      model.size, tokens: tokens, longest: longest, keeping: keeping, threads: threads)
  }

  /// The same of a model of certain sizes.
  package static func byteCount(
    _ model: ModelSize, tokens: Int, longest: Int, keeping: Keeping, threads: Int
  ) -> Int {
    let configuration = model.configuration
    let masked = model.maskedInputs
    let hidden = configuration.hiddenSize
    let queries = configuration.headCount * configuration.headSize
    let keys = configuration.keyHeadCount * configuration.headSize
    let inner = configuration.intermediateSize
    let hasHeadNorms = configuration.family == .qwen3
    let layer =
      2 * hidden + 2 * queries + 2 * keys + configuration.headCount + 2 * inner + 2
      + (hasHeadNorms ? queries + keys + configuration.headCount + configuration.keyHeadCount : 0)
      + (model.keepsOutputs ? 2 * hidden : 0)
    let kept =
      switch keeping {
      case .everything: configuration.layerCount * layer
      case .inputs: configuration.layerCount * hidden + layer
      case .nothing: layer
      }
    let scratch = max(
      tokens * (2 * inner + 4 * queries + 2 * keys),
      CrossEntropy.logitCount(tokens: tokens, vocabulary: configuration.vocabularySize))
    let others = 5 * hidden + 2 * model.largestRank + masked + 1
    let attention = Attention(
      heads: configuration.headCount, keyHeads: configuration.keyHeadCount,
      headSize: configuration.headSize, window: nil, scaling: 1)
    let tiles =
      threads
      * max(
        masked > 0
          ? ProjectionGroup.droppingScratchCount(tokens: tokens) : ProjectionGroup.scratchCount,
        attention.scratchCount(length: longest))
    let tables = longest * configuration.headSize
    return 4 * (tokens * (kept + others) + scratch + tiles + tables)
  }
}
