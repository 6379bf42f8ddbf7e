import LinearAlgebra
import Testing

@testable import Models

private let models: [TinyModel] = [
  .init(), .init(family: "qwen2", isDoRA: true), .init(family: "qwen3", isDoRA: true),
  .init(family: "mistral", layerCount: 3, fields: #""sliding_window": 5"#),
  .init(layerCount: 1, isDoRA: true), .init(isDoRA: true, modules: ["1.mlp.down_proj"]),
  .init(layerCount: 3, modules: ["1.mlp.gate_proj"]),
  .init(
    family: "qwen3", modules: ["1.mlp.up_proj"],
    training: .init(modules: ["embed_tokens", "lm_head", "norm", "k_proj"], tokens: [])),
  .init(modules: ["1.mlp.up_proj"], training: .init(modules: ["model.norm"], tokens: [4, 0, 7])),
]

extension [Float] {
  fileprivate var bits: [UInt32] { map(\.bitPattern) }
}

@Suite struct LossPassTests {
  @Test(arguments: models) func checkpointedRunsAreThoseThatKeepEverything(
    tiny: TinyModel
  ) throws {
    let model = try tiny.load()
    let batch = randomBatch([70, 5, 50])
    let kept = model.run(batch, keeping: .everything)
    let checkpointed = model.run(batch, keeping: .inputs)
    #expect(kept.losses == checkpointed.losses)
    #expect(kept.gradients.bits == checkpointed.gradients.bits)
    #expect(kept.gradients.contains { $0 != 0 })
    let pass = LossPass(
      model, team: ThreadTeam(count: 2), tokens: 125, longest: 70, keeping: .nothing)
    #expect(pass.losses(batch) == kept.losses)
  }

  @Test(arguments: models) func threadsChangeNoBit(tiny: TinyModel) throws {
    let model = try tiny.load()
    let batch = randomBatch([70, 5, 50])
    let expected = model.run(batch, threads: 1)
    for threads in [2, 3, 7] {
      let found = model.run(batch, threads: threads)
      #expect(found.losses == expected.losses)
      #expect(found.gradients.bits == expected.gradients.bits)
    }
  }

  @Test(arguments: models) func packedTextsAreTheTextsAlone(tiny: TinyModel) throws {
    let model = try tiny.load()
    let texts = [17, 3, 1, 30].enumerated().map { randomBatch([$1], seed: $0) }
    let packed = TokenBatch(
      texts.map { text in (text.tokens, [false] + text.labels.dropLast().map { $0 != nil }) })
    let together = model.run(packed)
    #expect(texts.flatMap { model.run($0).losses } == together.losses)

    let pass = LossPass(
      model, team: ThreadTeam(count: 2), tokens: 30, longest: 30, keeping: .everything)
    for text in texts { _ = pass.addGradients(text, scale: 0.25) }
    let alone = model.takeGradients()
    // The sums over the tokens are each batch's, and then added up.
    #expect(error(alone, together.gradients.map(Double.init)) < f32Tolerance)
  }

  @Test(arguments: models, [LossPass.Keeping.everything, .inputs])
  func memoryIsUsedAgainForAShorterBatch(tiny: TinyModel, keeping: LossPass.Keeping) throws {
    let model = try tiny.load()
    let pass = LossPass(
      model, team: ThreadTeam(count: 2), tokens: 90, longest: 60, keeping: keeping)
    for (seed, lengths) in [[60, 30], [7, 2], [33]].enumerated() {
      let batch = randomBatch(lengths, seed: seed)
      let losses = pass.addGradients(batch, scale: 0.25)
      let gradients = model.takeGradients()
      let fresh = model.run(batch, keeping: keeping)
      #expect(losses == fresh.losses)
      #expect(gradients.bits == fresh.gradients.bits)
      #expect(pass.losses(batch) == fresh.losses)
    }
  }

  /// A batch's frequencies are its own, whatever longer ones there are.
  @Test func dynamicFrequenciesFollowTheBatch() throws {
    let model = try TinyModel(
      fields: #""rope_scaling": {"rope_type": "dynamic", "factor": 4}"#
    ).load()
    let pass = LossPass(
      model, team: ThreadTeam(count: 2), tokens: 130, longest: 110, keeping: .everything)
    let long = randomBatch([110, 20])
    #expect(pass.losses(long) == model.run(long).losses)
    for length in [40, 80] {
      let batch = randomBatch([length, 5], seed: length)
      #expect(pass.losses(batch) == model.run(batch).losses, "\(length)")
    }
  }

  @Test(arguments: models) func withoutLabelsNothingIsLearned(tiny: TinyModel) throws {
    let model = try tiny.load()
    let pass = LossPass(
      model, team: ThreadTeam(count: 2), tokens: 9, longest: 9, keeping: .everything)
    let unlabelled = TokenBatch([([1, 2, 3], [true, false, false])])
    #expect(pass.addGradients(unlabelled, scale: 1) == [])
    #expect(pass.addGradients(randomBatch([]), scale: 1) == [])
    #expect(model.takeGradients().allSatisfy { $0 == 0 })
  }

  @Test func theScaleMultipliesTheGradient() throws {
    let model = try TinyModel().load()
    let batch = randomBatch([9])
    let pass = LossPass(
      model, team: ThreadTeam(count: 2), tokens: 9, longest: 9, keeping: .everything)
    _ = pass.addGradients(batch, scale: 1)
    let whole = model.takeGradients()
    _ = pass.addGradients(batch, scale: 0.5)
    // A power of two rounds nothing.
    #expect(model.takeGradients() == whole.map { $0 * 0.5 })
  }

  @Test func logitsOfSomePlacesAreThoseOfAll() throws {
    let model = try TinyModel(family: "qwen3").load()
    let batch = randomBatch([5, 6])
    let pass = LossPass(
      model, team: ThreadTeam(count: 2), tokens: 11, longest: 6, keeping: .nothing)
    let all = pass.logits(batch, after: Array(0..<11))
    let some = pass.logits(batch, after: [4, 10, 4])
    #expect(some.rows(0..<1).bits == all.rows(4..<5).bits)
    #expect(some.rows(1..<2).bits == all.rows(10..<11).bits)
    #expect(some.rows(2..<3).bits == all.rows(4..<5).bits)
  }

  /// More labels than logits are held at a time, in blocks that do not come out even.
  @Test func manyLabelsGoBlockByBlock() throws {
    let model = try TinyModel(modules: ["v_proj", "lm_head"]).load()
    let head = CrossEntropy(head: model.head)
    let (h, work) = (randomRows(50, 8, seed: 1), workspace())
    let labels = (0..<50).map { Int32($0 % 13) }
    func losses(_ block: Int) -> (losses: [Double], dh: [UInt32], gradients: [Float]) {
      let dh = Rows(50, 8)
      let losses = head.losses(
        h, labels: labels, scale: 0.5, logits: Rows(block, 13), dh: dh, work)
      return (losses, dh.bits, model.takeGradients())
    }
    let whole = losses(50)
    for block in [1, 7, 48] {
      let found = losses(block)
      #expect(found.losses == whole.losses && found.dh == whole.dh)
      // Each block's sum over its tokens, added up.
      #expect(error(found.gradients, whole.gradients.map(Double.init)) < f32Tolerance)
    }
  }
}

@Suite struct TokenBatchTests {
  @Test func aTokenPredictsTheNextOfItsText() {
    let batch = TokenBatch([
      ([5, 6, 7], [true, true, false]), ([], []), ([8], [true]), ([9, 4], [false, true]),
    ])
    #expect(batch.tokens == [5, 6, 7, 8, 9, 4])
    #expect(batch.texts == [0..<3, 3..<4, 4..<6])
    #expect(batch.labels == [6, nil, nil, nil, 4, nil])
    #expect(batch.labelCount == 2)
    #expect(batch.positions == [0, 1, 2, 0, 0, 1])
  }
}
