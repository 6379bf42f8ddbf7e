import Checkpoints
import Files
import JSON
import Quantization
import Tensors

/// What the `quantization_config` of a model and its quantized weights have to agree on.
struct QuantizationExpectations {
  /// What is wrong with the quantized weights, each for itself.
  let faults: [PeftoolError]
  /// Where the configuration says something else than the weights; no more than one sentence.
  let contradiction: PeftoolError?
  /// The number of quantized weights that are sound.
  var weightCount: Int { weights.count }
  private let weights: [QuantizedWeight]

  init(_ model: Checkpoint, _ config: JSON?) {
    let (weights, faults) = QuantizedWeight.scan(model)
    (self.weights, self.faults) = (weights, faults)
    contradiction = faults.isEmpty ? Self.contradiction(weights, config) : nil
  }

  /// Tensors of the model, in which weights in groups have the names and shapes that they stand for.
  func decoded(_ tensors: [TensorInfo]) -> [TensorInfo] {
    var shown: [ExactName: QuantizedWeight] = [:]
    for weight in weights {
      if case .groups = weight.form { shown[ExactName(weight.codes.name)] = weight }
    }
    return tensors.map { tensor in
      guard let weight = shown[ExactName(tensor.name)] else { return tensor }
      return TensorInfo(
        name: weight.name, dtype: tensor.dtype, shape: weight.shape, byteRange: tensor.byteRange,
        fileIndex: tensor.fileIndex)
    }
  }

  private static func contradiction(
    _ weights: [QuantizedWeight], _ config: JSON?
  ) -> PeftoolError? {
    // What config.json says of weights in groups has told what their tensors have to be.
    let weights = weights.filter { if case .groups = $0.form { false } else { true } }
    guard let config, let first = weights.first else { return nil }
    func fault(_ reason: String) -> PeftoolError {
      PeftoolError(.different, reason, tensor: first.codes.name)
    }
    let settings = config["quantization_config"]
    guard settings?["quant_method"] == .string("bitsandbytes") else {
      return fault(
        "is quantized by bitsandbytes, and quantization_config does not say so: transformers would "
          + "take the codes for numbers")
    }
    for weight in weights {
      let isFourBit: Bool
      let type: String
      if case .blocks(let state, _) = weight.form {
        (isFourBit, type) = (true, state.code.rawValue)
      } else {
        (isFourBit, type) = (false, "int8")
      }
      if settings?[isFourBit ? "load_in_4bit" : "load_in_8bit"] == .bool(false) {
        return PeftoolError(
          .different, "is \(type), which quantization_config excludes", tensor: weight.codes.name)
      }
      if isFourBit, case .string(let told) = settings?["bnb_4bit_quant_type"], told != type {
        return PeftoolError(
          .different, "is \(type), bnb_4bit_quant_type is \"\(told.printable)\"",
          tensor: weight.codes.name)
      }
    }
    return nil
  }
}
