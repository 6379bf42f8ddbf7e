import Files
import JSON
import Patterns
import Testing

@testable import Adapters

/// Lists of numbers, and what they are in each layer.
private let gradients: [([Double], [Double])] = [
  ([0, 1], [0, 0.25, 0.5, 0.75, 1]), ([0.2, 0.8, 0.4], [0.2, 0.5, 0.8, 0.6, 0.4]),
  ([1, 0, 1], [1, 1.0 / 3, 1.0 / 3, 1]), ([0.3], [0.3, 0.3, 0.3]), ([0, 1], [1]),
]

@Suite struct ParameterTests {
  /// `evaluate_setting` of mergekit's `config.py`: `scaled = t * (len(setting) - 1)`, then between
  /// its two neighbours, with t = i / (L − 1).
  @Test(arguments: gradients)
  func gradientsRunAlongTheLayers(values: [Double], right: [Double]) throws {
    let paths = right.indices.map { "model.layers.\($0).mlp" }
    let positions = try LayerPositions(of: paths, layerCount: nil)
    let rule = Parameter.Rule(filter: nil, values: values, origin: nil)
    for (path, expected) in zip(paths, right) {
      let value = rule.value(at: positions.position(of: path, .linear))
      #expect(abs(value - expected) < 1e-15)
    }
  }

  @Test func theFirstRuleThatMatchesCounts() throws {
    let parameter = Parameter([
      Parameter.Rule(filter: try Glob("*.q_proj"), values: [0.1], origin: nil),
      Parameter.Rule(filter: try Glob("*.{q,k}_proj"), values: [0.2, 0.4], origin: nil),
    ])
    #expect(parameter.value(of: "a.q_proj", at: 1) == 0.1)
    #expect(parameter.value(of: "a.k_proj", at: 0) == 0.2)
    #expect(parameter.value(of: "a.k_proj", at: 1) == 0.4)
    #expect(parameter.value(of: "a.v_proj", at: 0) == nil)
    #expect(parameter.otherwise(0.7).value(of: "a.v_proj", at: 0) == 0.7)
    #expect(parameter.otherwise(0.7).value(of: "a.q_proj", at: 0) == 0.1)
  }

  @Test(arguments: [
    ("model.layers.11.self_attn.q_proj", "model.layers", 11),
    ("transformer.h.3.attn", "transformer.h", 3),
    ("0.auto_model.encoder.layer.4.x", "0.auto_model.encoder.layer", 4),
    ("model.layers.2.experts.7.w1", "model.layers", 2), ("encoder.5.x", "encoder", 5),
  ])
  func layersAreFoundInPaths(path: String, stack: String, index: Int) throws {
    let layer = try #require(LayerPositions.layer(of: path))
    #expect(layer.stack.string == stack)
    #expect(layer.index == index)
  }

  @Test func modulesWithoutALayerLieAtTheEnds() throws {
    let positions = try LayerPositions(
      of: ["model.layers.3.x", "vision.layers.1.x"], layerCount: nil)
    #expect(positions.position(of: "lm_head", .linear) == 1)
    #expect(positions.position(of: "model.embed_tokens", .embedding) == 0)
    // Each stack has its own layers.
    #expect(positions.position(of: "vision.layers.1.x", .linear) == 1)
    #expect(positions.position(of: "model.layers.1.x", .linear) == 1.0 / 3)
  }

  @Test func layersBeyondThoseThatAreSaidAreRefused() throws {
    let positions = try LayerPositions(of: ["model.layers.2.x"], layerCount: 5)
    #expect(positions.position(of: "model.layers.2.x", .linear) == 0.5)
    #expect(
      throws: PeftoolError(
        .different, "layers is 5, and model.layers.5.x lies in layer 5, from 0 on")
    ) { try LayerPositions(of: ["model.layers.5.x"], layerCount: 5) }
  }
}
