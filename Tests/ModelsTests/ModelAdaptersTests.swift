import Adapters
import Checkpoints
import Files
import Fixtures
import Foundation
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
    (["save-modules"], "'peftool merge' folds the adapter into the model"),
    (["ia3"], "holds factors of (IA)³, which is not applied beside the weights"),
    (["trainable-tokens"], "holds rows of an embedding, which is not applied beside the weights"),
    (["embedding"], "no linear layer alone, which is not applied beside the weights"),
    (["pissa-mutated"], "which changed the base before training"),
    (["layer-replication"], "has layer_replication; 'peftool merge' folds the adapter"),
  ])
  func whatIsNoLinearLayerIsRefused(adapters: [String], reason: String) throws {
    let found = try #require(refusal(adapters))
    #expect(found.contains(reason), "\(found)")
    #expect(!found.contains("\n"))
  }

  @Test(arguments: [
    ("bias-all", "takes the place of 'model.layers.0.self_attn."),
    ("lora-bias", "changes a bias, which is not applied beside the weights"),
  ])
  func biasesAreRefused(adapter: String, reason: String) throws {
    let found = try #require(refusal([adapter], base: "bases/qwen2-f32"))
    #expect(found.contains(reason), "\(found)")
    #expect(found.contains("'peftool merge' folds the adapter into the model"), "\(found)")
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
