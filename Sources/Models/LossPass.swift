package import LinearAlgebra

/// The loss of a batch, and its gradients: all memory for it, which is used again for each batch.
///
/// Peak memory in floats, for N tokens, Λ layers: Λ·N·(2·hidden + (2·heads + 2·keyHeads)·D + heads +
/// 2·F + 2) kept for the backward pass (with checkpointed activations Λ·N·hidden and one layer's),
/// N·5·hidden, and the larger of a layer's scratch, N·(2·F + (4·heads + 2·keyHeads)·D), and a block
/// of logits.
package final class LossPass: Sendable {
  private let model: Llama
  /// The most tokens of a batch.
  package let tokenCount: Int
  private let keeping: Keeping
  private let work: Workspace
  /// What each layer keeps; one that all share where activations are checkpointed, or nothing is
  /// trained.
  private let kept: [DecoderLayer.Kept]
  /// With checkpointed activations the layers' inputs.
  private let inputs: [Rows]
  private let scratch: DecoderLayer.Scratch
  /// (N, hidden): the last layer's output and then its gradient.
  private let output: Rows
  /// (N, hidden) each: the rows with labels, their norms and gradients.
  private let labelled: (x: Rows, h: Rows, rho: Rows)
  /// In the memory of the scratch: no layer is computed while they are there.
  private let logits: Rows
  private let rotary: RotaryEmbedding
  /// The lowest layer of which anything is trained, or the first where the embedding is: nothing is
  /// computed below it in the backward pass.
  private let lowestTrained: Int
  /// The tokens of a group of shifted sparse attention, in training; nil for whole texts.
  private let groupSize: Int?

  /// What is kept for the backward pass.
  package enum Keeping: Sendable {
    /// Nothing: only losses are computed.
    case nothing
    /// The inputs of the layers: the rest is computed a second time.
    case inputs
    /// All that a layer's backward pass needs.
    case everything
  }

  /// Memory for batches of so many tokens, in texts of so many.
  ///
  /// - Parameter groupSize: the tokens of a group of LongLoRA's attention, which gradients are those
  ///   of; losses alone are always those of whole texts.
  package init(
    _ model: Llama, team: ThreadTeam, tokens: Int, longest: Int, keeping: Keeping,
    groupSize: Int? = nil
  ) {
    self.model = model
    self.groupSize = groupSize
    self.keeping = keeping
    tokenCount = tokens
    let configuration = model.configuration
    let hidden = configuration.hiddenSize
    work = Workspace(
      team: team, tokens: tokens,
      scratch: model.layers[0].attention.scratchCount(length: longest), rank: model.largestRank,
      masked: model.maskedInputs)
    kept =
      keeping == .everything
      ? model.layers.map { $0.makeKept(tokens, hasOutputs: $0.keepsOutputs) }
      : [
        model.layers[0].makeKept(
          tokens, hasOutputs: model.layers.contains(where: \.keepsOutputs))
      ]
    inputs = keeping == .inputs ? model.layers.map { _ in Rows(tokens, hidden) } : []
    let logitCount = CrossEntropy.logitCount(
      tokens: tokens, vocabulary: configuration.vocabularySize)
    scratch = model.layers[0].makeScratch(tokens, atLeast: logitCount)
    logits = scratch.rows(
      of: configuration.vocabularySize,
      stride: CrossEntropy.stride(vocabulary: configuration.vocabularySize),
      floatCount: logitCount)
    output = Rows(tokens, hidden)
    labelled = (Rows(tokens, hidden), Rows(tokens, hidden), Rows(1, tokens))
    rotary = RotaryEmbedding(
      configuration.rotary, headSize: configuration.headSize, count: longest)
    lowestTrained =
      model.embedding.table.isTrained
      ? 0 : model.layers.firstIndex(where: \.isTrained) ?? model.layers.count
  }

  /// The loss of each label, in the order of the labels.
  package func losses(_ batch: TokenBatch) -> [Double] { run(batch, scale: nil, work) { _ in } }

  /// The same, and the gradients of scale · Σ losses, added to those that are there.
  ///
  /// - Parameters:
  ///   - dropout: what adapters with dropout leave out; nil to leave out nothing.
  ///   - take: given the matrices of each layer that are trained whole, from the last layer on, when
  ///     this batch adds nothing more to their gradients.
  package func addGradients(
    _ batch: TokenBatch, scale: Float, dropout: Dropout? = nil,
    taking take: ([TrainableParameter]) -> Void = { _ in }
  ) -> [Double] {
    precondition(keeping != .nothing, "what a backward pass needs")
    return run(batch, scale: scale, dropout.map { work.dropping($0) } ?? work, take)
  }

  /// The logits after some tokens, (places, vocabulary).
  package func logits(_ batch: TokenBatch, after places: [Int]) -> Rows {
    forward(batch.tokens, texts(of: batch), work)
    let logits = Rows(places.count, model.configuration.vocabularySize)
    model.head.forward(normalized(places).h, into: [logits], work)
    return logits
  }

  private func run(
    _ batch: TokenBatch, scale: Float?, _ work: Workspace,
    _ take: ([TrainableParameter]) -> Void
  ) -> [Double] {
    let count = batch.tokens.count
    let texts = texts(of: batch, groupSize: scale == nil ? nil : groupSize)
    forward(batch.tokens, texts, work)
    let d = output.rows(0..<count)
    let places = batch.labels.indices.filter { batch.labels[$0] != nil }
    let (x, h, rho) = normalized(places)
    let dh = scratch.dh.rows(0..<places.count)
    let isTrainedBelow = lowestTrained < model.layers.count
    let needsGradient = scale != nil && (isTrainedBelow || model.norm.trained != nil)
    let losses = CrossEntropy(head: model.head).losses(
      h, labels: batch.labels.compactMap(\.self), scale: scale, logits: logits,
      dh: needsGradient ? dh : nil, work)
    guard needsGradient else { return losses }
    guard isTrainedBelow else {
      model.norm.backward(dh, x: x, rho: rho, addingTo: nil, work)
      return losses
    }
    d.clear()
    let dx = scratch.h.rows(0..<places.count)
    dx.clear()
    model.norm.backward(dh, x: x, rho: rho, addingTo: dx, work)
    for (row, place) in places.enumerated() {
      d.rows(place..<place + 1).copy(from: dx.rows(row..<row + 1))
    }
    backward(d, texts, work, take)
    if model.embedding.table.isTrained { model.embedding.backward(d, batch.tokens, work) }
    return losses
  }

  private func texts(of batch: TokenBatch, groupSize: Int? = nil) -> DecoderLayer.Texts {
    precondition(batch.tokens.count <= tokenCount, "a batch that there is memory for")
    var rotary = rotary
    if case .dynamic = model.configuration.rotary.kind {
      // These frequencies follow from the longest text of a batch, as transformers has it for the
      // first one; of later ones it goes on with what was longest so far.
      rotary = RotaryEmbedding(
        model.configuration.rotary, headSize: model.configuration.headSize,
        count: max(1, batch.texts.map(\.count).max() ?? 0))
    }
    let ranges =
      groupSize.map { AttentionRanges(batch.texts, groupSize: $0) } ?? AttentionRanges(batch.texts)
    return DecoderLayer.Texts(positions: batch.positions, ranges: ranges, rotary: rotary)
  }

  /// The last layer's output at some tokens, what the last norm makes of it, and its ρ.
  private func normalized(_ places: [Int]) -> (x: Rows, h: Rows, rho: Rows) {
    let (x, h) = (labelled.x.rows(0..<places.count), labelled.h.rows(0..<places.count))
    let rho = labelled.rho.columns(0..<places.count)
    work.forTokens(places.count) { _, part in
      for row in part {
        x.rows(row..<row + 1).copy(from: output.rows(places[row]..<places[row] + 1))
      }
    }
    model.norm.forward(x, into: h, rho: rho, work)
    return (x, h, rho)
  }

  /// The last layer's output, into `output`.
  private func forward(
    _ tokens: [Int32], _ texts: DecoderLayer.Texts, _ work: Workspace
  ) {
    let count = tokens.count
    let scratch = scratch.first(count)
    model.embedding.forward(tokens, into: keptInput(0).rows(0..<count), work)
    for (place, layer) in model.layers.enumerated() {
      let own = kept(place).first(count, x: keptInput(place))
      let isLast = place == model.layers.count - 1
      let target = isLast ? output : keptInput(place + 1)
      layer.forward(own, texts, into: target.rows(0..<count), scratch, work)
    }
  }

  private func backward(
    _ d: Rows, _ texts: DecoderLayer.Texts, _ work: Workspace,
    _ take: ([TrainableParameter]) -> Void
  ) {
    let scratch = scratch.first(d.count)
    for place in model.layers.indices.reversed() where place >= lowestTrained {
      let layer = model.layers[place]
      let own = kept(place).first(d.count, x: keptInput(place))
      // The last layer's is still there.
      if !inputs.isEmpty, place < model.layers.count - 1 {
        layer.forward(own, texts, into: labelled.x.rows(0..<d.count), scratch, work)
      }
      layer.backward(
        own, texts, d, needsInput: place > lowestTrained || model.embedding.table.isTrained,
        scratch, work)
      take(layer.trainedMatrices)
    }
  }

  private func kept(_ place: Int) -> DecoderLayer.Kept { kept.count == 1 ? kept[0] : kept[place] }

  /// Where a layer's input is.
  ///
  /// With nothing kept the layers take turns at two places.
  private func keptInput(_ place: Int) -> Rows {
    if !inputs.isEmpty { return inputs[place] }
    if kept.count > 1 || model.layers.count == 1 { return kept(place).x }
    return place % 2 == 0 ? kept[0].x : labelled.x
  }
}
