import Adapters
import Checkpoints
import Files
import Fixtures
import Foundation
import LinearAlgebra
import Tensors
import Testing

@testable import Models

/// Which adapters are applied beside a model, and what is said of the others.
@Suite struct ModelAdaptersTests {
  private static func sample(_ name: String) -> String {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Samples/\(name)").path
  }

  private func load(
    _ adapters: [String], weights: [Double]? = nil, base: String = "bases/llama-bf16"
  ) throws -> Llama {
    let checkpoint = try Checkpoint(opening: Self.sample(base))
    let opened = try adapters.map { try Adapter(opening: Self.sample("adapters/\($0)")) }
    return try Llama(
      checkpoint,
      adapters: ModelAdapters(
        opened, weights: weights ?? opened.map { _ in 1 }, for: checkpoint))
  }

  private func refusal(
    _ adapters: [String], weights: [Double]? = nil, base: String = "bases/llama-bf16"
  ) -> String? {
    do {
      _ = try load(adapters, weights: weights, base: base)
      return nil
    } catch {
      return "\(error)"
    }
  }

  @Test func oneAdapterIsAppliedAsItIs() throws {
    let model = try load(["lora"])
    let pair = try #require(model.adapters.first { $0.module.hasSuffix("0.self_attn.q_proj") })
    #expect(pair.adapter.a.name == "base_model.model.\(pair.module).lora_A.weight")
    #expect(pair.adapter.scaling == 2)
    #expect(pair.adapter.rank == 4)
    #expect(pair.adapter.magnitude == nil)
    #expect(try load(["dora"]).adapters.allSatisfy { $0.adapter.magnitude != nil })
  }

  /// What is not trained has no gradients, nor room to lay the factors out for them: the factors,
  /// and A times the scaling.
  @Test func anAdapterInUseTakesItsFactors() throws {
    for (_, adapter) in try load(["lora"]).adapters {
      #expect(adapter.parameters.isEmpty)
      let (a, b) = (adapter.a.elementCount, adapter.b.elementCount)
      #expect(adapter.byteCount == 4 * (2 * a + b))
    }
  }

  /// What is foretold by the shapes in the file.
  @Test(arguments: ["lora", "dora", "lora-bias"])
  func whatAnAdapterTakesIsKnownBefore(name: String) throws {
    let adapter = try Adapter(opening: Self.sample("adapters/\(name)"))
    let model = try load([name])
    #expect(!model.adapters.isEmpty)
    #expect(adapter.appliedByteCount == model.adapters.reduce(0) { $0 + $1.adapter.byteCount })
    #expect(adapter.appliedByteCount > 4 * adapter.parameterCount)
  }

  @Test func severalAddUp() throws {
    let model = try load(["task-a", "task-b"], weights: [0.5, 2])
    let (a, b) = (try load(["task-a"]), try load(["task-b"]))
    for (module, sum) in model.adapters {
      let parts = [(a, Float(0.5)), (b, 2)].compactMap { model, weight in
        model.adapters.first { $0.module == module }.map { ($0.adapter, weight) }
      }
      #expect(sum.rank == parts.reduce(0) { $0 + $1.0.rank })
      let (inputs, outputs) = (sum.a.values.columns, sum.b.values.columns)
      let found = Rows(outputs, inputs)
      sum.add(rows: 0..<outputs, columns: 0..<inputs, to: found)
      let expected = Rows(outputs, inputs)
      for (part, weight) in parts {
        let one = Rows(outputs, inputs)
        part.add(rows: 0..<outputs, columns: 0..<inputs, to: one)
        for (place, value) in one.values.enumerated() {
          expected[place / inputs, place % inputs] += weight * value
        }
      }
      #expect(zip(found.values, expected.values).allSatisfy { abs($0 - $1) < 1e-5 })
    }
  }

  @Test(arguments: [
    (["dora", "lora"], "is of DoRA, which is applied alone and with weight 1"),
    (["save-modules", "lora"], "'peftool merge' folds the adapter into the model"),
    (
      ["save-modules", "lora"],
      "takes the place of 'lm_head.weight', as only an adapter by itself, of weight 1, does"
    ),
    (["ia3"], "holds factors of (IA)³, which is not applied beside the weights"),
    (
      ["trainable-tokens", "lora"],
      "holds rows of an embedding, which is not applied beside the weights"
    ),
    (["embedding"], "no linear layer alone, which is not applied beside the weights"),
    (["pissa-mutated"], "which changed the base before training"),
    (["layer-replication"], "has layer_replication; 'peftool merge' folds the adapter"),
  ])
  func whatIsNoLinearLayerIsRefused(adapters: [String], reason: String) throws {
    let found = try #require(refusal(adapters))
    #expect(found.contains(reason), "\(found)")
    #expect(!found.contains("\n"))
  }

  /// Own tensors, rows of the embedding and biases, beside the weights and merged in F32.
  @Test(arguments: [
    ("llama-f32", "save-modules"), ("llama-f32", "trainable-tokens"), ("qwen2-f32", "bias-all"),
    ("qwen2-f32", "lora-bias"), ("llama-f32", "lora"), ("llama-f32", "dora"),
    ("llama-bf16", "save-modules"), ("llama-bf16", "lora"),
  ])
  func besideTheWeightsAndMergedAreTheSame(base: String, name: String) throws {
    let model = try load([name], base: "bases/\(base)")
    let checkpoint = try Checkpoint(opening: Self.sample("bases/\(base)"))
    var options = MergePlan.Options(weights: [1])
    options.dtype = .f32
    let plan = try MergePlan(
      checkpoint, [Adapter(opening: Self.sample("adapters/\(name)"))], options)
    let merged = try Llama(
      checkpoint.viewed(through: MergedSource(plan), config: plan.base.config))
    let tokens: [Int32] = [1, 7, 100, 42, 7, 3]
    let team = ThreadTeam(count: 1)
    let logits = [model, merged, try Llama(checkpoint)].map { model in
      LossPass(model, team: team, tokens: 6, longest: 6, keeping: .nothing)
        .logits(
          TokenBatch([(tokens, tokens.map { _ in true })]), after: Array(tokens.indices)
        ).values
    }
    let scale = logits[1].map(abs).max() ?? 0
    #expect(zip(logits[0], logits[1]).allSatisfy { abs($0 - $1) < 2e-5 * scale })
    #expect(zip(logits[0], logits[2]).contains { abs($0 - $1) > 1e-3 * scale })
  }

  @Test func aBiasIsAddedWhereTheModelHasNone() throws {
    let model = try load(["lora-bias"], base: "bases/llama-f32")
    let (_, adapter) = try #require(model.adapters.first)
    let bias = try #require(adapter.bias)
    #expect(!bias.isDecayed)
    #expect(bias.name.hasSuffix("lora_B.bias") && bias.values.values.contains { $0 != 0 })
    let sum = try load(["lora-bias", "lora-bias"], weights: [0.5, 2], base: "bases/llama-f32")
    let added = try #require(sum.adapters.first?.adapter.bias).values.values
    for (one, both) in zip(bias.values.values, added) {
      #expect(abs(both - 2.5 * adapter.scaling * one) < 1e-6)
    }
  }

  @Test func doraHasNoWeight() throws {
    let found = try #require(refusal(["dora"], weights: [0.5]))
    #expect(found.contains("'peftool merge' takes weights"), "\(found)")
  }

  @Test func anAdapterOfAnotherModelIsRefused() throws {
    let found = try #require(refusal(["conv1d"]))
    #expect(found.contains("matches no tensor"), "\(found)")
  }
}
