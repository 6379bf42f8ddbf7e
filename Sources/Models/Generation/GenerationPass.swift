import Checkpoints
package import LinearAlgebra

/// A text that grows: what a model says comes next, after a prompt and then a token at a time.
///
/// The logits are those of `LossPass` over the whole text within rounding: what is computed for a
/// few tokens adds up products in another order. They depend on no number of threads.
///
/// Memory in floats, for Λ layers: a cache of Λ·2·keyHeads·D a token, which is the system's until
/// tokens are there; N·(2·hidden + (2·heads + 2·keyHeads)·D + 3·F + heads), with norms of heads
/// N·(heads + keyHeads)·D more, for the N = 512 tokens at most that are computed at once; the logits.
package struct GenerationPass: Sendable {
  private let model: Llama
  private let work: Workspace
  private let caches: [KeyValueCache]
  private let memory: DecoderLayer.GenerationMemory
  private let logits: Rows
  /// The most tokens of the text.
  package let capacity: Int
  /// The tokens that there are.
  package private(set) var count = 0

  /// The most tokens that are computed at once.
  static let blockTokenCount = 512

  /// Memory for a text of so many tokens.
  package init(_ model: Llama, team: ThreadTeam, capacity: Int) {
    precondition(capacity > 0, "a token at least")
    self.model = model
    self.capacity = capacity
    let configuration = model.configuration
    let groups = model.groups
    let block = min(capacity, Self.blockTokenCount)
    work = Workspace(
      team: team, tokens: ProjectionGroup.fewTokens,
      scratch: max(
        model.layers[0].attention.scratchCount(length: 0),
        groups.map { ProjectionGroup.fewScratchCount(inputs: $0.inputs) }.max() ?? 0),
      rank: model.largestRank)
    caches = model.layers.map { _ in
      KeyValueCache(
        capacity: capacity, keyHeads: configuration.keyHeadCount,
        headSize: configuration.headSize)
    }
    memory = model.layers[0].makeGenerationMemory(block)
    logits = Rows(1, configuration.vocabularySize)
    for group in groups { group.findGains(work) }
  }

  /// The bytes that a text of so many tokens takes beside the model once they are there, what its
  /// threads have of their own apart.
  package static func byteCount(_ model: Llama, capacity: Int) -> Int {
    let configuration = model.configuration
    let queries = configuration.headCount * configuration.headSize
    let keys = configuration.keyHeadCount * configuration.headSize
    let block =
      2 * (configuration.hiddenSize + queries + keys) + 3 * configuration.intermediateSize
      + (configuration.family == .qwen3 ? queries + keys : 0) + configuration.headCount
    return 4
      * (capacity * 2 * keys * configuration.layerCount
        + min(capacity, blockTokenCount) * block + configuration.vocabularySize)
  }

  /// Adds tokens to the text, and gives the logits of the token after them, (1, vocabulary).
  ///
  /// The rows are the same at each call.
  package mutating func logits(after tokens: [Int32]) -> Rows {
    precondition(!tokens.isEmpty && count + tokens.count <= capacity, "tokens with room for them")
    // Rotary frequencies may depend on the whole length: those of the keys in the cache stay what
    // they were when the text was shorter, as in transformers.
    let length = count + tokens.count
    var last = 0
    for block in (0..<tokens.count).cut(into: memory.x.count) {
      forward(Array(tokens[block]), length: length)
      last = block.count - 1
    }
    let (x, h) = (memory.x.rows(last..<last + 1), memory.h.rows(0..<1))
    model.norm.forward(x, into: h, rho: memory.rho.columns(0..<1), work)
    model.head.apply(h, into: [logits], work)
    return logits
  }

  /// Begins a new text.
  package mutating func clear() { count = 0 }

  private mutating func forward(_ tokens: [Int32], length: Int) {
    let configuration = model.configuration
    let memory = memory.first(tokens.count)
    let rotary = RotaryEmbedding(
      configuration.rotary, headSize: configuration.headSize,
      positions: count..<count + tokens.count, length: length)
    let positions = tokens.indices.map { Int32($0) }
    model.embedding.forward(tokens, into: memory.x, work)
    for (layer, cache) in zip(model.layers, caches) {
      layer.forward(memory, cache, first: count, rotary: rotary, positions: positions, work)
    }
    count += tokens.count
  }
}
