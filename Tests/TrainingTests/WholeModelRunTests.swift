import Checkpoints
import Files
import Fixtures
import Foundation
import JSON
import LinearAlgebra
import Tensors
import Testing

@testable import Models
@testable import Training

/// As of `PEFTRunTests`.
private let lossTolerance = 1e-4
private let endTolerance = 1e-3
private let gradientTolerance: Float = 1e-5

/// A run of torch or galore_torch in `Samples/training` that trains all of a model, made anew.
private struct WholeModelRun {
  let folder: String
  let expected: JSON
  let base: Checkpoint
  let trainer: Trainer
  private let batches: Checkpoint

  static func folder(_ name: String) -> String {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Samples/training/\(name)").path
  }

  init(_ name: String, sharesGradients: Bool) throws {
    folder = Self.folder(name)
    expected = try JSON(opening: folder + "/expected.json")
    batches = try Checkpoint(opening: folder + "/batches.safetensors")
    base = try Checkpoint(opening: Self.folder("bases/\(expected.string(at: "base"))"))
    var method = MethodSettings.full
    let decay = try expected.double(at: "weight_decay")
    if let known = expected["galore"], known != .null {
      var settings = GaLore.Settings()
      settings.rank = try known.int(at: "rank")
      settings.gap = try known.int(at: "update_proj_gap")
      settings.scale = try known.double(at: "scale")
      settings.projection = try #require(
        GaLore.Projection(rawValue: known.string(at: "proj_type")))
      settings.weightDecay = decay
      method = .galore(settings)
    }
    var settings = Trainer.Settings(
      schedule: Schedule(kind: .constant, warmupSteps: 0, stepCount: 12), method: method)
    settings.learningRate = try expected.double(at: "lr")
    settings.adamW.weightDecay = decay
    let model = try Llama(base, training: .wholeModel(sharingGradients: sharesGradients))
    trainer = try Trainer(model, settings, team: ThreadTeam(count: 2))
  }

  func batch(_ step: Int) throws -> TokenBatch {
    let (ids, mask) = (try batches.floats("input_ids"), try batches.floats("label_mask"))
    return TokenBatch(
      (0..<2).map { row in
        let own = (step * 2 + row) * 32..<(step * 2 + row + 1) * 32
        return (ids[own].map { Int32($0) }, mask[own].map { $0 != 0 })
      })
  }

  func makePass() -> LossPass {
    LossPass(
      trainer.model, team: ThreadTeam(count: 2), tokens: 64, longest: 32, keeping: .everything)
  }
}

private let runs = ["full-llama3", "galore-llama3", "galore-reverse-qwen3", "galore-full-qwen2"]

@Suite struct WholeModelRunTests {
  @Test(arguments: runs, [false, true])
  func twelveStepsAreThoseOfThePeer(name: String, sharesGradients: Bool) throws {
    guard !sharesGradients || name.hasPrefix("galore") else { return }
    let run = try WholeModelRun(name, sharesGradients: sharesGradients)
    let pass = run.makePass()
    let losses = try run.expected.array(at: "losses").map { try $0.double(named: "losses") }
    let norms = try run.expected.array(at: "grad_norms").map { try $0.double(named: "norms") }
    #expect(losses.count == 12 && norms.count == 12)
    for (place, loss) in losses.enumerated() {
      let step = try run.trainer.step([run.batch(place)], pass: pass)
      #expect(abs(step.loss - loss) < lossTolerance * loss, "step \(step.number)")
      #expect(
        abs(step.gradientNorm - norms[place]) < lossTolerance * norms[place],
        "norm of step \(step.number)")
    }
    let end = try Checkpoint(opening: run.folder + "/end.safetensors")
    #expect(end.tensors.count == run.trainer.parameters.count)
    for parameter in run.trainer.parameters {
      let expected = try end.floats(parameter.name)
      let largest = expected.reduce(0) { max($0, abs($1)) }
      let worst = zip(parameter.values.values, expected).reduce(0) { max($0, abs($1.0 - $1.1)) }
      #expect(Double(worst) < endTolerance * Double(largest), "\(parameter.name)")
    }
  }

  @Test(arguments: runs) func gradientsAreThoseOfTorch(name: String) throws {
    let run = try WholeModelRun(name, sharesGradients: false)
    let batch = try run.batch(0)
    _ = run.makePass().addGradients(batch, scale: 1 / Float(batch.labelCount))
    let known = try Checkpoint(opening: run.folder + "/gradients_step0.safetensors")
    for parameter in run.trainer.parameters {
      let expected = try known.floats(parameter.name)
      let largest = expected.reduce(0) { max($0, abs($1)) }
      let worst = zip(parameter.gradient.values, expected)
        .reduce(0) { max($0, abs($1.0 - $1.1)) }
      #expect(worst <= gradientTolerance * largest, "\(parameter.name)")
    }
  }
}
