import Adapters
import Checkpoints
import Files
import Fixtures
import Foundation
import JSON
import Tensors

@testable import Models

/// `Samples/training`, made by `Samples/make_training_samples.py` with transformers and PEFT.
enum TrainingSamples {
  static func path(_ name: String) -> String {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Samples/training/\(name)").path
  }

  static let bases = ["llama3-f32", "qwen2-f32", "qwen3-f32", "mistral-f32"]
  static let runs = [
    "lora-llama3", "dora-llama3", "lora-qwen2", "dora-qwen2", "lora-qwen3", "lora-mistral",
    "qlora-llama3", "qdora-llama3", "ends-qwen3", "tied-llama3", "norms-qwen3", "linear-qwen2",
    "tokens-llama3", "tokens-qwen3",
  ]
}

/// The tensors of a file, as numbers.
struct TensorFile {
  private let file: Checkpoint

  init(_ name: String) throws {
    file = try Checkpoint(opening: TrainingSamples.path(name))
  }

  var names: [String] { file.tensors.map(\.name) }

  func shape(_ name: String) -> [Int]? { file[name]?.shape }

  func values(_ name: String) throws(PeftoolError) -> [Float] {
    guard let tensor = file[name] else {
      throw PeftoolError(.different, "is not there", tensor: name, path: file.path)
    }
    let bytes = try file.source.bytes(of: tensor)
    var values = [Float](repeating: 0, count: tensor.elementCount)
    var span = values.mutableSpan
    Float.read(bytes.span.bytes, tensor.dtype, into: &span, count: tensor.elementCount)
    return values
  }
}

/// A matrix the other way round: (rows, columns) to (columns, rows).
func transposed(_ values: [Float], columns: Int) -> [Float] {
  let rows = values.count / max(1, columns)
  return (0..<columns).flatMap { column in (0..<rows).map { values[$0 * columns + column] } }
}

/// A run of PEFT: what it begins with, and what it finds.
struct TrainingRun {
  let model: Llama
  let gradients: TensorFile
  let expected: JSON
  private let batches: TensorFile

  init(_ name: String, at place: String = "start") throws {
    expected = try JSON(opening: TrainingSamples.path("\(name)/expected.json"))
    gradients = try TensorFile("\(name)/gradients_step0.safetensors")
    batches = try TensorFile("\(name)/batches.safetensors")
    let configuration = try AdapterConfiguration(
      JSON(opening: TrainingSamples.path("\(name)/\(place)/adapter_config.json")))
    let file = try TensorFile("\(name)/\(place)/adapter_model.safetensors")
    let base = try Checkpoint(
      opening: TrainingSamples.path("bases/\(expected.string(at: "base"))"))
    let isQuantized = expected.value(at: ["quant"]) != .null
    var tokens: [Int] = []
    if case .inputEmbedding(let indices) = configuration.tokens { tokens = indices }
    let training = TrainedWeights(modules: configuration.modulesToSave, tokens: tokens)
    model = try Llama(
      base, quantizing: isQuantized, training: training
    ) { (module, weight, _) throws(PeftoolError) in
      let prefix = "base_model.model.\(module)."
      let (a, b) = (prefix + "lora_A.weight", prefix + "lora_B.weight")
      guard let rank = file.shape(a)?[0] else { return nil }
      var magnitude: TrainableParameter?
      if configuration.usesDoRA {
        let name = prefix + "lora_magnitude_vector"
        magnitude = TrainableParameter(
          name + ".weight", Rows(try file.values(name), columns: weight.outputs))
      }
      let factors = (try file.values(a), transposed(try file.values(b), columns: rank))
      return LoRA(
        a: TrainableParameter(a, Rows(factors.0, columns: weight.inputs)),
        b: TrainableParameter(b, Rows(factors.1, columns: weight.outputs)), magnitude: magnitude,
        scaling: Float(try configuration.scaling(of: module, keptRank: rank)))
    }
    for weight in model.trainedWeights {
      weight.parameter.values.copy(from: try file.values(weight.parameter.name))
    }
  }

  /// The gradient that is there, as PEFT's file has it: B (outputs, rank).
  func gradient(_ parameter: TrainableParameter) -> [Float] {
    let values = parameter.gradient.values
    return parameter.name.hasSuffix("lora_B.weight")
      ? transposed(values, columns: parameter.gradient.columns) : values
  }

  /// The two texts of a step.
  func batch(_ step: Int) throws -> TokenBatch {
    let (ids, mask) = (try batches.values("input_ids"), try batches.values("label_mask"))
    let (rows, length) = (2, 32)
    return TokenBatch(
      (0..<rows).map { row in
        let own = (step * rows + row) * length..<(step * rows + row + 1) * length
        return (ids[own].map { Int32($0) }, mask[own].map { $0 != 0 })
      })
  }
}
