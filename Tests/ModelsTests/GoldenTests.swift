import Checkpoints
import JSON
import LinearAlgebra
import Testing

@testable import Models

/// What f32 loses in two layers, as a part of the largest logit; torch adds up in another order.
private let logitTolerance = 2e-5
/// The same of a tensor's largest gradient.
private let gradientTolerance = 1e-5

/// Against what transformers and PEFT computed with torch.
@Suite struct GoldenTests {
  @Test(arguments: TrainingSamples.bases) func logitsAreThoseOfTransformers(base: String) throws {
    let file = try TensorFile("logits.safetensors")
    let tokens = try file.values("input_ids").map { Int32($0) }
    let length = tokens.count / 2
    let batch = TokenBatch(
      (0..<2).map { row in
        (
          Array(tokens[row * length..<(row + 1) * length]),
          [Bool](repeating: true, count: length)
        )
      })
    let model = try Llama(Checkpoint(opening: TrainingSamples.path("bases/\(base)")))
    let pass = LossPass(
      model, team: ThreadTeam(count: 2), tokens: tokens.count, longest: length,
      keeping: .nothing)
    let logits = pass.logits(batch, after: Array(tokens.indices))
    let expected = try file.values(base).map(Double.init)
    #expect(expected.count == tokens.count * model.configuration.vocabularySize)
    #expect(error(logits.values, expected) < logitTolerance)

    let losses = pass.losses(batch)
    let mean = losses.reduce(0, +) / Double(losses.count)
    let known = try JSON(opening: TrainingSamples.path("losses.json")).double(at: base)
    #expect(abs(mean - known) < gradientTolerance)
  }

  @Test(arguments: TrainingSamples.runs, [LossPass.Keeping.everything, .inputs])
  func gradientsAreThoseOfPEFT(name: String, keeping: LossPass.Keeping) throws {
    let run = try TrainingRun(name)
    let batch = try run.batch(0)
    let pass = LossPass(
      run.model, team: ThreadTeam(count: 2), tokens: batch.tokens.count, longest: 32,
      keeping: keeping)
    let losses = pass.addGradients(batch, scale: 1 / Float(batch.labelCount))
    let loss = losses.reduce(0, +) / Double(losses.count)
    let expected = try run.expected.array(at: "losses")[0].double(named: "losses")
    #expect(abs(loss - expected) < gradientTolerance * expected)

    var squares = 0.0
    for parameter in run.model.parameters {
      let found = run.gradient(parameter)
      let known = try run.gradients.values(parameter.name).map(Double.init)
      #expect(error(found, known) < gradientTolerance, "\(parameter.name)")
      squares += found.reduce(0) { $0 + Double($1) * Double($1) }
    }
    #expect(run.model.parameters.map(\.name).sorted() == run.gradients.names.sorted())
    let norm = try run.expected.array(at: "grad_norms")[0].double(named: "grad_norms")
    #expect(abs(squares.squareRoot() - norm) < gradientTolerance * norm)
  }

  /// PEFT's losses of each step need an optimizer; those of the trained adapter do not.
  @Test(arguments: TrainingSamples.runs) func trainedAdaptersPredictBetter(name: String) throws {
    let runs = try ["start", "end"].map { try TrainingRun(name, at: $0) }
    let batch = try runs[0].batch(0)
    let means = runs.map { run in
      let losses = LossPass(
        run.model, team: ThreadTeam(count: 2), tokens: batch.tokens.count, longest: 32,
        keeping: .nothing
      ).losses(batch)
      return losses.reduce(0, +) / Double(losses.count)
    }
    #expect(means[1] < means[0])
  }
}
