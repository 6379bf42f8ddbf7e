import Adapters
import Checkpoints
import Files
import Fixtures
import Foundation
import JSON
import LinearAlgebra
import Models
import Tensors
import Testing

@testable import Training

/// What f32 loses in twelve steps, as a part of a loss or a norm, and of an adapter's change.
private let (stepTolerance, adapterTolerance) = (1e-4, 1e-3)

private func sample(_ name: String) -> String {
  URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("Samples/training/\(name)").path
}

/// Twelve steps of PEFT and torch, gone through from the same adapter with the same batches.
@Suite struct GoldenRunTests {
  @Test(arguments: [
    "lora-llama3", "dora-llama3", "lora-qwen2", "dora-qwen2", "lora-qwen3", "lora-mistral",
    "qlora-llama3", "qdora-llama3",
  ])
  func stepsAreThoseOfPEFT(name: String) throws {
    let expected = try JSON(opening: sample("\(name)/expected.json"))
    let base = try Checkpoint(opening: sample("bases/\(expected.string(at: "base"))"))
    let adapters = try ModelAdapters(
      [Adapter(opening: sample("\(name)/start"))], weights: [1], for: base)
    let model = try Llama(base, quantizing: expected["quant"] != .null) { module, _, _ in
      adapters.pair(of: module)
    }
    let losses = try expected.array(at: "losses").map { try $0.double(named: "loss") }
    let norms = try expected.array(at: "grad_norms").map { try $0.double(named: "norm") }
    var settings = Trainer.Settings(
      schedule: Schedule(kind: .constant, warmupSteps: 0, stepCount: losses.count))
    settings.learningRate = try expected.double(at: "lr")
    settings.adamW.weightDecay = try expected.double(at: "weight_decay")
    settings.adamW.epsilon = try expected.double(at: "eps")
    settings.maximumGradientNorm = try expected.double(at: "max_grad_norm")
    let team = ThreadTeam(count: 2)
    let trainer = Trainer(model, settings, team: team)
    let batches = try Checkpoint(opening: sample("\(name)/batches.safetensors"))
    let texts = try (0..<losses.count).map { try batch($0, of: batches) }
    let pass = LossPass(
      model, team: team, tokens: texts.map(\.tokens.count).max() ?? 0,
      longest: texts.flatMap { $0.texts.map(\.count) }.max() ?? 0, keeping: .everything)
    for (place, text) in texts.enumerated() {
      let step = try trainer.step([text], pass: pass)
      #expect(abs(step.loss - losses[place]) < stepTolerance * losses[place], "\(place)")
      #expect(abs(step.gradientNorm - norms[place]) < stepTolerance * norms[place], "\(place)")
    }
    try compare(trainer, from: "\(name)/start", with: "\(name)/end")
  }

  /// The difference from PEFT's end, beside how far PEFT's end is from the start.
  private func compare(_ trainer: Trainer, from start: String, with end: String) throws {
    let files = try [start, end].map {
      try Checkpoint(opening: sample("\($0)/adapter_model.safetensors"))
    }
    for parameter in trainer.parameters {
      let (before, after) = (
        try values(parameter.name, in: files[0]), try values(parameter.name, in: files[1])
      )
      let isB = parameter.name.hasSuffix("lora_B.weight")
      let rows = parameter.values
      let found = (0..<after.count).map { place in
        isB
          ? rows[place % rows.count, place / rows.count]
          : rows[place / rows.columns, place % rows.columns]
      }
      let way = zip(before, after).map { abs($0 - $1) }.max() ?? 0
      let error = zip(found, after).map { abs($0 - $1) }.max() ?? 0
      #expect(Double(error) < adapterTolerance * Double(way), "\(parameter.name)")
      #expect(way > 0)
    }
  }

  private func values(_ name: String, in file: Checkpoint) throws -> [Float] {
    let tensor = try #require(file[name], "\(name)")
    let bytes = try file.source.bytes(of: tensor)
    return (0..<tensor.elementCount).map { place in
      Float(
        bitPattern: (0..<4).reduce(0) {
          $0 | UInt32(bytes.span[4 * place + $1]) << (8 * UInt32($1))
        })
    }
  }

  /// The texts of a step, and which of their tokens are learned.
  private func batch(_ number: Int, of file: Checkpoint) throws -> TokenBatch {
    func numbers(_ name: String) throws -> (shape: [Int], values: [Int32]) {
      let tensor = try #require(file[name], "\(name)")
      let bytes = try file.source.bytes(of: tensor)
      // I64, of which all are small.
      let values = (0..<tensor.elementCount).map { place in
        (0..<4).reduce(Int32(0)) { $0 | Int32(bytes.span[8 * place + $1]) << (8 * Int32($1)) }
      }
      return (tensor.shape, values)
    }
    let (ids, isLabel) = (try numbers("input_ids"), try numbers("label_mask"))
    let (rows, length) = (ids.shape[1], ids.shape[2])
    return TokenBatch(
      (0..<rows).map { row in
        let start = (number * rows + row) * length
        let range = start..<start + length
        return (Array(ids.values[range]), isLabel.values[range].map { $0 != 0 })
      })
  }
}
