import LinearAlgebra
import Testing

@testable import Models

private let yarn =
  #""rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 16}"#

/// Every family and form of layer, and adapters on some layers only.
private let models: [TinyModel] =
  [
    .init(), .init(isDoRA: true),
    .init(fields: #""attention_bias": true, "mlp_bias": true"#, isDoRA: true),
    .init(family: "mistral", fields: #""sliding_window": 3"#),
    .init(family: "qwen2", fields: #""tie_word_embeddings": true"#, isDoRA: true),
    .init(family: "qwen3", isDoRA: true), .init(family: "qwen3"),
    .init(fields: yarn, isDoRA: true),
    .init(isDoRA: true, modules: ["0.mlp.down_proj"]),
    .init(modules: ["1.self_attn.v_proj", "1.mlp.up_proj"]),
    .init(modules: ["lm_head"]), .init(modules: ["q_proj", "lm_head"]),
  ] + ownWeights

/// Weights of the model itself that are trained: at both ends, between, and only above.
private let ownWeights: [TinyModel] = [
  .init(training: .init(modules: ["embed_tokens", "lm_head", "norm"], tokens: [])),
  .init(
    family: "qwen2", fields: #""tie_word_embeddings": true"#, isDoRA: true,
    training: .init(modules: ["lm_head", "k_proj"], tokens: [])),
  .init(
    family: "qwen3", modules: ["1.mlp.up_proj"], training: .init(modules: ["norm"], tokens: [])),
  .init(
    fields: #""attention_bias": true, "mlp_bias": true"#, modules: ["q_proj"],
    training: .init(modules: ["k_proj", "1.mlp.down_proj", "o_proj"], tokens: [])),
  .init(modules: ["lm_head"], training: .init(modules: ["model.norm"], tokens: [])),
  .init(
    modules: ["lm_head"], training: .init(modules: ["1.input_layernorm"], tokens: [])),
  .init(
    family: "qwen2", fields: #""tie_word_embeddings": true"#, modules: ["1.mlp.up_proj"],
    training: .init(modules: [], tokens: [11, 0, 7, 3])),
  .init(family: "mistral", modules: ["lm_head"], training: .init(modules: [], tokens: [5, 2, 9])),
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

    for weight in model.trainedWeights {
      let count = weight.parameter.elementCount
      let places = Array(stride(from: count % 2, to: count, by: max(1, count / 8)))
      let start = weight.parameter.values.doubles
      let expected = places.map { element in
        centralDifferences(at: [start[element]]) { value in
          var moved = twin
          moved.set(weight, element, value[0])
          return 0.25 * moved.loss(batch)
        }[0]
      }
      let found = weight.parameter.gradient.values
      let largest = found.reduce(0) { max($0, Double(abs($1))) }
      #expect(largest > 0, "\(weight.parameter.name)")
      let worst = error(places.map { found[$0] }, expected, of: largest)
      #expect(worst < modelTolerance, "\(weight.parameter.name)")
    }
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
