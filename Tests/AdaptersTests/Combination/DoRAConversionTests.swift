import Checkpoints
import Fixtures
import Tensors
import Testing

@testable import Adapters

/// What `convert --to dora` makes of LoRA, whatever the LoRA is.
@Suite struct DoRAConversionTests {
  /// Some ulps of F32, in which B, A and m are rounded once, and the merged weight again.
  private static let someF32ULPs = 0x1p-21

  private static let shapes = [
    "layers.0.q_proj": [9, 7], "layers.0.up_proj": [5, 8], "layers.1.q_proj": [6, 6],
    "layers.1.down_proj": [7, 3],
  ]

  /// A LoRA adapter for some of the modules: ranks and alphas by pattern or for all, or rsLoRA's.
  private func randomAdapter(
    in scratch: Scratch, using numbers: inout SplitMix64
  ) throws -> String {
    var rank: [String: Int] = [:]
    for path in Self.shapes.keys.sorted() where rank.isEmpty || Bool.random(using: &numbers) {
      rank[path] = Int.random(in: 1...6, using: &numbers)
    }
    let common = Int.random(in: 1...6, using: &numbers)
    if Bool.random(using: &numbers) { rank = rank.mapValues { _ in common } }
    let ranks = rank.filter { $0.value != common }
    var alphas: [String: Double] = [:]
    for path in rank.keys.sorted() where Int.random(in: 0..<3, using: &numbers) == 0 {
      alphas[path] = Double.random(in: 0.5...9, using: &numbers)
    }
    func random(_ count: Int, _ numbers: inout SplitMix64) -> [Float] {
      (0..<count).map { _ in Float.random(in: -1...1, using: &numbers) }
    }
    var tensors: [Values] = []
    for path in rank.keys.sorted() {
      let (shape, rank) = (Self.shapes[path] ?? [], rank[path] ?? 1)
      let name = "base_model.model.\(path)"
      tensors += [
        Values(
          "\(name).lora_A.weight", [rank, shape[1]], random(rank * shape[1], &numbers)),
        Values(
          "\(name).lora_B.weight", [shape[0], rank], random(shape[0] * rank, &numbers)),
      ]
    }
    func pattern<Number>(_ values: [String: Number]) -> String {
      "{" + values.map { "\"^\($0.key)\": \($0.value)" }.sorted().joined(separator: ", ") + "}"
    }
    return try scratch.writeAdapter(
      named: "lora",
      fields: """
        "r": \(common), "lora_alpha": \(Int.random(in: 1...16, using: &numbers)), \
        "use_rslora": \(Bool.random(using: &numbers)), "rank_pattern": \(pattern(ranks)), \
        "alpha_pattern": \(pattern(alphas))
        """, tensors)
  }

  private func merged(_ base: String, _ adapter: String) throws -> [String: [Double]] {
    let source = MergedSource(try plan(base, [adapter]))
    var weights: [String: [Double]] = [:]
    for info in source.tensors {
      weights[info.name] = try StoredTensor(info, in: source).values(Double.self)
    }
    return weights
  }

  @Test(arguments: 0..<50) func mergesToTheSameWeights(seed: Int) throws {
    let scratch = try Scratch()
    var numbers = SplitMix64(seed: seed)
    let base = try scratch.writeModel(
      Self.shapes.sorted { $0.key < $1.key }.map { path, shape in
        Values(
          "\(path).weight", shape,
          (0..<shape[0] * shape[1]).map { _ in Float.random(in: -1...1, using: &numbers) })
      })
    let lora = try randomAdapter(in: scratch, using: &numbers)
    var settings = CombinationSettings()
    settings.form = .dora
    let model = try BaseModel(Checkpoint(opening: base))
    let conversion = try Combination(
      [Operand(opening: lora, base: model)], weights: [1], base: model, settings)
    let adapter = try conversion.run(as: .f32, threads: 1) { _ in }.adapter
    #expect(adapter.usesDoRA)
    let dora = scratch.path("dora")
    try AdapterWriting(AdapterFormat.peft.files(for: adapter, .init(base: nil, prefix: nil)))
      .run(to: dora, inputs: conversion.sources, isForced: false, threads: 1) { _ in }
    let (one, two) = (try merged(base, lora), try merged(base, dora))
    #expect(one.count == Self.shapes.count)
    for (name, values) in one {
      let others = try #require(two[name])
      let difference = zip(values, others).map { $0 - $1 }
      #expect(difference.norm <= Self.someF32ULPs * values.norm, "\(name)")
    }
  }
}
