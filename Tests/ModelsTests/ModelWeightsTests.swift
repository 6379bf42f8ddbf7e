import Checkpoints
import Files
import Fixtures
import Foundation
import Tensors
import Testing

@testable import Models

@Suite struct ModelWeightsTests {
  private static let config = TinyModel(fields: #""mlp_bias": true"#).config

  private func load(
    _ config: String = Self.config, _ change: (inout [Values]) -> Void
  ) throws -> Llama {
    let scratch = try Scratch()
    var tensors = try TinyModel(fields: #""mlp_bias": true"#).tensors()
    change(&tensors)
    try scratch.write("config.json", config)
    try scratch.write("model.safetensors", tensors)
    return try Llama(Checkpoint(opening: scratch.path))
  }

  private func refused(
    _ config: String = Self.config, _ change: (inout [Values]) -> Void
  ) throws -> PeftoolError {
    try #require(throws: PeftoolError.self) { try load(config, change) }
  }

  @Test func everyTensorHasItsPlace() throws {
    let model = try load { _ in }
    #expect(model.projections.count == 15)
    #expect(model.projections[4].name == "model.layers.0.mlp.gate_proj")
    #expect(model.projections[4].bias != nil && model.projections[0].bias == nil)
    #expect(model.configuration.linearLayers == model.projections.map(\.name))
    #expect(model.adapters.isEmpty && model.largestRank == 0)
    let weights = model.projections.map { $0.inputs * $0.outputs }.reduce(0, +)
    #expect(model.byteCount == 4 * (weights + 13 * 8))
  }

  /// What is shared is not read again: the file's numbers have become zeros meanwhile.
  @Test func sharedTensorsAreReadOnce() throws {
    let scratch = try Scratch()
    let tensors = try TinyModel(fields: #""mlp_bias": true"#).tensors()
    try scratch.write("config.json", Self.config)
    try scratch.write("model.safetensors", tensors)
    let checkpoint = try Checkpoint(opening: scratch.path)
    func numbers(_ model: Llama) -> [Float] {
      model.projections.flatMap { layer in
        let all = Rows(layer.outputs, layer.inputs)
        layer.fill(rows: 0..<layer.outputs, columns: 0..<layer.inputs, into: all)
        return all.values + (layer.bias?.values ?? [])
      } + model.norm.weight.values
    }
    let shared = SharedTensors()
    let first = numbers(try Llama(checkpoint, sharing: shared))
    let file = try FileHandle(
      forWritingTo: URL(fileURLWithPath: scratch.path("model.safetensors")))
    let byteCount = tensors.reduce(0) { $0 + $1.bytes.count }
    try file.seek(toOffset: try file.seekToEnd() - UInt64(byteCount))
    try file.write(contentsOf: Data(count: byteCount))
    #expect(first.contains { $0 != 0 })
    #expect(numbers(try Llama(checkpoint, sharing: shared)) == first)
    #expect(numbers(try Llama(checkpoint)).allSatisfy { $0 == 0 })
  }

  @Test(arguments: [
    "model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight",
    "model.layers.0.mlp.up_proj.bias", "model.norm.weight", "lm_head.weight",
  ])
  func aMissingTensorIsNamed(name: String) throws {
    let error = try refused { tensors in tensors.removeAll { $0.name == name } }
    #expect(error.kind == .different && error.tensor == name)
    #expect(error.reason == "is not there, which config.json makes part of the model")
  }

  @Test(arguments: [
    ("model.layers.0.self_attn.q_proj.weight", [8, 16], "[16, 8]"),
    ("model.layers.1.mlp.down_proj.weight", [80], "[8, 10]"),
    ("model.layers.1.input_layernorm.weight", [2, 4], "[8]"),
    ("model.layers.1.mlp.up_proj.bias", [9], "[10]"), ("lm_head.weight", [13, 8, 1], "[13, 8]"),
  ])
  func anotherShapeIsNamed(name: String, shape: [Int], expected: String) throws {
    let error = try refused { tensors in
      tensors = tensors.map {
        $0.name == name
          ? Values(name, shape, [Float](repeating: 0, count: shape.reduce(1, *))) : $0
      }
    }
    #expect(error.kind == .different && error.tensor == name)
    #expect(error.reason == "has shape \(shape), config.json makes it \(expected)")
    #expect(error.path?.hasSuffix("/model.safetensors") == true)
  }

  @Test func tensorsOfAnotherModelAreRefused() throws {
    let error = try refused { tensors in
      for name in ["b", "a"] {
        tensors.append(Values("model.layers.0.self_attn.\(name)_norm.weight", [1], [0]))
      }
    }
    #expect(error.kind == .different)
    #expect(error.tensor == "model.layers.0.self_attn.b_norm.weight")
    #expect(
      error.reason
        == "is no part of such a model, nor is 1 other: config.json is another's")
  }

  @Test func oldBuffersAndATiedCopyArePassedOver() throws {
    let tied = TinyModel(fields: #""mlp_bias": true, "tie_word_embeddings": true"#).config
    let model = try load(tied) { tensors in
      tensors.append(Values("model.layers.0.self_attn.rotary_emb.inv_freq", [2], [1, 1]))
      tieHead(&tensors)
    }
    #expect(model.head.projections[0].weight.values == model.embedding.table.values)
  }

  @Test func aHeadThatIsNotTheTableItIsTiedToIsRefused() throws {
    let tied = TinyModel(fields: #""mlp_bias": true, "tie_word_embeddings": true"#).config
    let error = try refused(tied) { tensors in
      tieHead(&tensors, isSame: false)
    }
    #expect(error.kind == .different && error.tensor == "lm_head.weight")
    #expect(error.reason.contains("is not the same as model.embed_tokens.weight"))
  }

  /// Gives the head the embedding's values, or all but one of them.
  private func tieHead(_ tensors: inout [Values], isSame: Bool = true) {
    tensors.removeAll { $0.name == "lm_head.weight" }
    guard let table = tensors.first(where: { $0.name == "model.embed_tokens.weight" }) else {
      return
    }
    var bytes = table.bytes
    if !isSame { bytes[0] ^= 1 }
    tensors.append(Values("lm_head.weight", table.shape, bytes: bytes, dtype: table.dtype))
  }

  @Test func aDtypeWithoutMathsIsRefused() throws {
    let name = "model.layers.0.mlp.gate_proj.weight"
    let error = try refused { tensors in
      tensors = tensors.map {
        $0.name == name
          ? Values(name, [10, 8], bytes: [UInt8](repeating: 1, count: 80), dtype: .i8) : $0
      }
    }
    #expect(error.kind == .unsupported && error.tensor == name)
    #expect(error.reason.hasPrefix("is I8, expected F64, F32"))
  }

  @Test func aModelWithoutItsConfigurationIsRefused() throws {
    let scratch = try Scratch()
    try scratch.write("model.safetensors", TinyModel().tensors())
    let error = try #require(throws: PeftoolError.self) {
      try Llama(Checkpoint(opening: scratch.path))
    }
    #expect(error.reason.hasPrefix("has no config.json beside it"))
  }

  @Test func anErrorOfTheConfigurationNamesIt() throws {
    let error = try refused(Self.config.replacing("llama", with: "gpt2")) { _ in }
    #expect(error.kind == .unsupported && error.path?.hasSuffix("/config.json") == true)
  }

  @Test func weightsAreQuantizedButNotEmbeddings() throws {
    let model = try TinyModel().load(quantizing: true)
    #expect(model.projections.dropLast().allSatisfy { $0.weight.isQuantized })
    #expect(!model.embedding.table.isQuantized)
    #expect(model.projections.last?.weight.isQuantized == false)
  }
}
