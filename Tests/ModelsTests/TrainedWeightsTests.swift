import Files
import LinearAlgebra
import Testing

@testable import Models

private let tied = #""tie_word_embeddings": true"#

@Suite struct TrainedWeightsTests {
  private func names(_ modules: [String], _ tiny: TinyModel = .init(layerCount: 1)) throws
    -> [String]
  {
    var tiny = tiny
    tiny.training = .init(modules: modules, tokens: tiny.training.tokens)
    return try tiny.load().trainedWeights.flatMap(\.names).map { name in
      #expect(name.hasPrefix("base_model.model."))
      return String(name.dropFirst("base_model.model.".count))
    }
  }

  @Test func modulesAreThoseWithTheEndsOfTheirNames() throws {
    #expect(try names([]) == [])
    #expect(try names(["model.norm"]) == ["model.norm.weight"])
    #expect(
      try names(["norm"])
        == [
          "model.layers.0.input_layernorm.weight",
          "model.layers.0.post_attention_layernorm.weight", "model.norm.weight",
        ])
    #expect(
      try names(["embed_tokens", "lm_head"]) == ["model.embed_tokens.weight", "lm_head.weight"])
    let qwen = TinyModel(family: "qwen2", layerCount: 1)
    #expect(
      try names(["k_proj"], qwen)
        == ["model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.k_proj.bias"])
  }

  /// PEFT parts the ends of a tied model, or trains them as one.
  @Test(arguments: [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
  func aTableOfBothEndsIsTrainedAsOne(modules: [String]) throws {
    let tiny = TinyModel(layerCount: 1, fields: tied)
    #expect(try names(modules, tiny) == ["model.embed_tokens.weight", "lm_head.weight"])
    var whole = tiny
    whole.training = .init(modules: modules, tokens: [])
    let model = try whole.load()
    #expect(model.trainedWeights.count == 1)
    model.trainedWeights[0].parameter.values[3, 2] = 77
    #expect(model.head.projections[0].weight.values[3 * 8 + 2] == 77)
    #expect(model.embedding.table.values[3 * 8 + 2] == 77)
  }

  @Test func aTokenCountsOnce() throws {
    let tiny = TinyModel(layerCount: 1, training: .init(modules: [], tokens: [5, 2, 5]))
    let weight = try #require(try tiny.load().trainedWeights.first)
    #expect(weight.shape == [2, 8] && weight.isRows)
    #expect(
      weight.names == ["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"])
  }

  @Test(arguments: [
    (["foo"], [], "has no module 'foo' (--modules-to-save)"),
    (["mlp"], [], "fits 'model.layers.0.mlp', a group of modules"),
    (["norm", "s"], [], "fits 'model.layers', a group of modules"),
    (["embed_tokens"], [1], "the embedding is trained whole (--modules-to-save)"),
    ([], [13], "has no token 13 (--trainable-tokens): its embedding has 13"),
    ([], [-1], "has no token -1 (--trainable-tokens)"),
    ([], [4], "token 4 is its pad_token_id"), (["_proj"], [], "is one of both --target-modules"),
  ])
  func whatCannotBeTrainedIsRefused(modules: [String], tokens: [Int], message: String) throws {
    let tiny = TinyModel(
      layerCount: 1, fields: #""pad_token_id": 4"#,
      training: .init(modules: modules, tokens: tokens))
    let error = try #require(throws: PeftoolError.self) { try tiny.load() }
    #expect(error.description.contains(message), "\(error)")
    #expect(error.path != nil)
  }

  @Test func codesAreNotTrained() throws {
    let tiny = TinyModel(layerCount: 1, training: .init(modules: ["q_proj"], tokens: []))
    let error = try #require(throws: PeftoolError.self) { try tiny.load(quantizing: true) }
    #expect(error.tensor == "model.layers.0.self_attn.q_proj.weight")
    #expect(error.reason == "is quantized, and codes cannot be trained whole (--modules-to-save)")
    #expect(
      try TinyModel(layerCount: 1, training: .init(modules: ["lm_head"], tokens: []))
        .load(quantizing: true).trainedWeights.count == 1)
  }

  @Test func aTiedHeadHasNoAdapterBesideTrainedRows() throws {
    let tiny = TinyModel(
      layerCount: 1, fields: tied, modules: ["lm_head"],
      training: .init(modules: [], tokens: [1]))
    let error = try #require(throws: PeftoolError.self) { try tiny.load() }
    #expect(error.description.contains("'lm_head' is the input embedding too"))
  }

  /// torch's `padding_idx`: the row is read, and gets no gradient; a tied head's still counts.
  @Test(arguments: [4, -9]) func thePaddingTokensRowIsNotTrained(padding: Int) throws {
    let batch = TokenBatch([([4, 4, 2, 4, 2], [Bool](repeating: true, count: 5))])
    for isTied in [false, true] {
      let fields = "\"pad_token_id\": \(padding), \"tie_word_embeddings\": \(isTied)"
      let model = try TinyModel(
        fields: fields, training: .init(modules: ["embed_tokens"], tokens: [])
      ).load()
      _ = LossPass(
        model, team: ThreadTeam(count: 2), tokens: 5, longest: 5, keeping: .everything
      ).addGradients(batch, scale: 1)
      let gradient = model.trainedWeights[0].parameter.gradient
      #expect(gradient.rows(4..<5).values.allSatisfy { $0 == 0 } == !isTied)
      #expect(gradient.rows(2..<3).values.contains { $0 != 0 })
    }
  }

  /// A layer with more outputs than a piece of work has, and with inputs of several pieces, whole
  /// ones and others, and more tokens than are added up at once.
  @Test(arguments: [(70, 37, 410, 2), (300, 768, 40, 1), (300, 790, 40, 1)])
  func aWideLayerIsItsProducts(count: Int, inputs: Int, outputs: Int, threads: Int) {
    let (x, dy) = (randomRows(count, inputs, seed: 1), randomRows(count, outputs, seed: 2))
    let bias = TrainableParameter("b", randomRows(1, outputs, seed: 3))
    let parameter = TrainableParameter("w", randomRows(outputs, inputs, seed: 4))
    let group = ProjectionGroup(projections: [
      Projection("l", .whole(parameter), trainedBias: bias)
    ])
    let (y, dx) = (Rows(count, outputs), Rows(count, inputs))
    let work = workspace(threads: threads)
    group.forward(x, into: [y], work)
    group.backward(x, [dy], ys: [nil], into: dx, work)

    func matrix(_ rows: Rows) -> Matrix<Double> {
      Matrix(rows: rows.count, columns: rows.columns, elements: rows.doubles)
    }
    let (xs, dys, ws) = (matrix(x), matrix(dy), matrix(parameter.values))
    let ones = Matrix(rows: count, columns: 1, elements: [Double](repeating: 1, count: count))
    let biased = product(ones, matrix(bias.values)).elements
    let expected = zip(product(xs, ws, transposing: .right).elements, biased).map { $0 + $1 }
    #expect(error(y.values, expected) < f32Tolerance)
    #expect(error(dx.values, product(dys, ws).elements) < f32Tolerance)
    #expect(
      error(parameter.gradient.values, product(dys, xs, transposing: .left).elements)
        < f32Tolerance)
    #expect(
      error(bias.gradient.values, product(dys, ones, transposing: .left).elements) < f32Tolerance)
  }

  @Test(arguments: [["embed_tokens", "lm_head", "norm", "up_proj"], []])
  func whatIsTrainedGenerates(modules: [String]) throws {
    let model = try TinyModel(
      fields: modules.isEmpty ? tied : "",
      training: .init(modules: modules, tokens: modules.isEmpty ? [7, 3] : [])
    ).load()
    for weight in model.trainedWeights {
      for row in 0..<weight.parameter.values.count { weight.parameter.values[row, 0] += 0.5 }
    }
    let tokens: [Int32] = [3, 7, 1, 7, 0, 12]
    let pass = LossPass(
      model, team: ThreadTeam(count: 2), tokens: 6, longest: 6, keeping: .nothing)
    let expected = pass.logits(
      TokenBatch([(tokens, [Bool](repeating: true, count: 6))]), after: [5]
    ).doubles
    var generation = GenerationPass(model, team: ThreadTeam(count: 2), capacity: 6)
    _ = generation.logits(after: Array(tokens[..<4]))
    _ = generation.logits(after: [tokens[4]])
    #expect(error(generation.logits(after: [tokens[5]]).values, expected) < 2e-5)
  }
}
