import LinearAlgebra
import Testing

@testable import Models

private let yarn =
  #""rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 16}"#

/// Every family and form of layer, and adapters on some layers only.
private let models: [TinyModel] = [
  .init(), .init(isDoRA: true),
  .init(fields: #""attention_bias": true, "mlp_bias": true"#, isDoRA: true),
  .init(family: "mistral", fields: #""sliding_window": 3"#),
  .init(family: "qwen2", fields: #""tie_word_embeddings": true"#, isDoRA: true),
  .init(family: "qwen3", isDoRA: true), .init(family: "qwen3"),
  .init(fields: yarn, isDoRA: true),
  .init(isDoRA: true, modules: ["0.mlp.down_proj"]),
  .init(modules: ["1.self_attn.v_proj", "1.mlp.up_proj"]),
  .init(modules: ["lm_head"]), .init(modules: ["q_proj", "lm_head"]),
]

/// What f32 loses in two layers, as a part of a tensor's largest gradient.
private let modelTolerance = 2e-5

@Suite struct ModelGradientTests {
  private let batch = randomBatch([6, 1, 4])

  @Test(arguments: models) func logitsAreThoseOfTheFormulas(tiny: TinyModel) throws {
    let model = try tiny.load()
    let pass = LossPass(
      model, team: ThreadTeam(count: 2), tokens: 11, longest: 6, keeping: .nothing)
    let logits = pass.logits(batch, after: Array(batch.tokens.indices))
    #expect(error(logits.values, ModelTwin(model).logits(batch)) < modelTolerance)
  }

  /// Central differences of the whole model, DoRA's norms held constant.
  @Test(arguments: models) func gradientsAreDerivativesOfTheLoss(tiny: TinyModel) throws {
    let model = try tiny.load()
    let twin = ModelTwin(model)
    let (losses, _) = model.run(batch)
    #expect(abs(losses.reduce(0, +) - twin.loss(batch)) < modelTolerance)
    _ = LossPass(
      model, team: ThreadTeam(count: 2), tokens: 11, longest: 6, keeping: .everything
    ).addGradients(batch, scale: 0.25)

    let parts: [WritableKeyPath<LayerTwin, [Double]>] = [\.a, \.b, \.m]
    for (place, projection) in model.projections.enumerated() {
      for (parameter, part) in zip(projection.adapter?.parameters ?? [], parts) {
        // A few of many.
        let step = max(1, parameter.elementCount / 3)
        let places = Array(
          stride(from: parameter.elementCount % 2, to: parameter.elementCount, by: step))
        let expected = places.map { element in
          centralDifferences(at: [twin.linears[place][keyPath: part][element]]) { value in
            var moved = twin
            moved.linears[place][keyPath: part][element] = value[0]
            return 0.25 * moved.loss(batch)
          }[0]
        }
        let found = parameter.gradient.values
        let worst = error(places.map { found[$0] }, expected)
        #expect(worst < modelTolerance, "\(parameter.name)")
      }
    }
  }
}
