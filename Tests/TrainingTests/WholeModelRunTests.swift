import Checkpoints
import JSON
import LinearAlgebra
import Testing

@testable import Models
@testable import Training

/// A run of torch or galore_torch in `Samples/training` that trains all of a model, made anew.
private struct WholeModelRun {
  let peer: PeerRun
  let trainer: Trainer

  init(_ name: String, sharesGradients: Bool) throws {
    peer = try PeerRun(name)
    var method = MethodSettings.full
    let decay = try peer.expected.double(at: "weight_decay")
    if let known = peer.expected["galore"], known != .null {
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
    settings.learningRate = try peer.expected.double(at: "lr")
    settings.adamW.weightDecay = decay
    let model = try Llama(peer.base, training: .wholeModel(sharingGradients: sharesGradients))
    trainer = try Trainer(model, settings, team: ThreadTeam(count: 2))
  }

  func makePass() -> LossPass {
    LossPass(
      trainer.model, team: ThreadTeam(count: 2), tokens: 64, longest: 32, keeping: .everything)
  }
}

private let runs = ["full-llama3", "galore-llama3", "galore-reverse-qwen3", "galore-full-qwen2"]

@Suite struct WholeModelRunTests {
  @Test(
    arguments: runs.map { ($0, false) }
      + runs.filter { $0.hasPrefix("galore") }.map { ($0, true) })
  func twelveStepsAreThoseOfThePeer(name: String, sharesGradients: Bool) throws {
    let run = try WholeModelRun(name, sharesGradients: sharesGradients)
    try run.peer.makeSteps(run.trainer, run.makePass())
    let end = try Checkpoint(opening: run.peer.folder + "/end.safetensors")
    #expect(end.tensors.count == run.trainer.parameters.count)
    for parameter in run.trainer.parameters {
      let (worst, largest) = try distance(
        parameter.values.values, end.floats(parameter.name))
      #expect(Double(worst) < PeerRun.endTolerance * Double(largest), "\(parameter.name)")
    }
  }

  @Test(arguments: runs) func gradientsAreThoseOfTorch(name: String) throws {
    let run = try WholeModelRun(name, sharesGradients: false)
    let batch = try run.peer.batch(0)
    _ = run.makePass().addGradients(batch, scale: 1 / Float(batch.labelCount))
    let known = try run.peer.gradients
    for parameter in run.trainer.parameters {
      let (worst, largest) = try distance(
        parameter.gradient.values, known.floats(parameter.name))
      #expect(worst <= PeerRun.gradientTolerance * largest, "\(parameter.name)")
    }
  }
}
