import Adapters
import Checkpoints
import Files
import Fixtures
import Foundation
import LinearAlgebra
import Tensors
import Testing

@testable import Models

/// Decoding token by token against the forward pass over the whole text.
@Suite struct GenerationPassTests {
  /// What sums of f32 in another order may differ by, of logits of about 1.
  private static let rounding: Float = 1e-5
  private static let length = 60

  private static func sample(_ name: String) -> String {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Samples/\(name)").path
  }

  private static func model(
    _ base: String, adapter: String? = nil, quantizing: Bool = false
  ) throws -> Llama {
    let checkpoint = try Checkpoint(opening: sample("bases/\(base)"))
    guard let adapter else { return try Llama(checkpoint, quantizing: quantizing) }
    let opened = try Adapter(opening: sample("adapters/\(adapter)"))
    return try Llama(
      checkpoint, adapters: ModelAdapters([opened], weights: [1], for: checkpoint))
  }

  private static func tokens(of model: Llama, count: Int = length) -> [Int32] {
    (0..<count).map { Int32(($0 * 37 + 5) % model.configuration.vocabularySize) }
  }

  /// The logits after the last token, by the pass that computes all at once.
  private static func whole(_ model: Llama, _ tokens: [Int32]) -> [Float] {
    let pass = LossPass(
      model, team: ThreadTeam(count: 1), tokens: tokens.count, longest: tokens.count,
      keeping: .nothing)
    let batch = TokenBatch([(tokens, tokens.map { _ in true })])
    return pass.logits(batch, after: [tokens.count - 1]).values
  }

  /// The same, the tokens in pieces.
  private static func pieces(
    _ model: Llama, _ tokens: [Int32], _ sizes: [Int], threads: Int = 1
  ) -> [Float] {
    var pass = GenerationPass(
      model, team: ThreadTeam(count: threads), capacity: tokens.count + 3)
    var logits: [Float] = []
    for size in sizes {
      logits = pass.logits(after: Array(tokens[pass.count..<pass.count + size])).values
    }
    #expect(pass.count == tokens.count)
    return logits
  }

  /// What is told before a model is read is what it takes then: matrices, and vectors of norms.
  @Test(arguments: [false, true]) func theMemoryOfWeightsIsKnownBefore(quantizing: Bool) throws {
    let checkpoint = try Checkpoint(opening: Self.sample("bases/llama-f32"))
    let model = try Llama(checkpoint, quantizing: quantizing)
    let vectors = checkpoint.tensors.filter { $0.shape.count == 1 }.map(\.byteCount).reduce(0, +)
    #expect(
      Llama.byteCount(of: checkpoint, quantizing: quantizing) == model.byteCount + vectors)
  }

  private static let sizes = [
    [length], Array(repeating: 1, count: length), [20, 3, 1, 1, 30, 5], [4, 4, 52], [59, 1],
  ]

  @Test(arguments: [
    "llama-f32", "llama-bf16", "llama-f16", "llama-f8", "llama-tied-f32", "qwen2-f32",
  ])
  func piecesGiveWhatTheWholeGives(base: String) throws {
    let model = try Self.model(base)
    let tokens = Self.tokens(of: model)
    let expected = Self.whole(model, tokens)
    for sizes in Self.sizes {
      let found = Self.pieces(model, tokens, sizes)
      #expect(zip(found, expected).allSatisfy { abs($0 - $1) < Self.rounding })
    }
    #expect(Set(expected).count > 50)
  }

  /// Of widths that groups of 16 codes divide, which are multiplied as they are, and of others.
  @Test(arguments: ["generation/tiny-chat", "bases/llama-f32"])
  func quantizedWeightsAreTheirCodes(model path: String) throws {
    let model = try Llama(Checkpoint(opening: Self.sample(path)), quantizing: true)
    #expect(model.projections.dropLast().allSatisfy { $0.weight.isQuantized })
    let tokens = Self.tokens(of: model)
    let expected = Self.whole(model, tokens)
    for sizes in Self.sizes {
      let found = Self.pieces(model, tokens, sizes)
      let limit = Self.rounding * max(1, expected.map(abs).max() ?? 0)
      #expect(zip(found, expected).allSatisfy { abs($0 - $1) < limit })
    }
  }

  @Test(arguments: ["lora", "dora", "rslora-patterns", "dora-rslora", "adalora"])
  func adaptersAreApplied(adapter: String) throws {
    let model = try Self.model("llama-bf16", adapter: adapter)
    let tokens = Self.tokens(of: model)
    let expected = Self.whole(model, tokens)
    for sizes in Self.sizes {
      let found = Self.pieces(model, tokens, sizes)
      #expect(zip(found, expected).allSatisfy { abs($0 - $1) < Self.rounding })
    }
    let without = Self.whole(try Self.model("llama-bf16"), tokens)
    #expect(zip(without, expected).contains { abs($0 - $1) > 0.01 })
  }

  @Test func nothingDependsOnTheNumberOfThreads() throws {
    let model = try Self.model("llama-bf16", adapter: "dora")
    let tokens = Self.tokens(of: model)
    for sizes in Self.sizes {
      let alone = Self.pieces(model, tokens, sizes)
      #expect(Self.pieces(model, tokens, sizes, threads: 2) == alone)
      #expect(Self.pieces(model, tokens, sizes, threads: 5) == alone)
    }
  }

  @Test func aSecondTextBeginsAnew() throws {
    let model = try Self.model("llama-f32")
    let tokens = Self.tokens(of: model)
    var pass = GenerationPass(model, team: ThreadTeam(count: 1), capacity: Self.length)
    let first = pass.logits(after: tokens).values
    pass.clear()
    _ = pass.logits(after: Array(tokens.reversed()))
    pass.clear()
    #expect(pass.logits(after: tokens).values == first)
  }
}
