import Checkpoints
import Files
import JSON
import Quantization
import Tensors

/// What the `quantization_config` of a model and its quantized weights have to agree on.
struct QuantizationExpectations {
  /// What is wrong with the weights that bitsandbytes has quantized, each for itself.
  let faults: [PeftoolError]
  /// Where the configuration says something else than the weights; no more than one sentence.
  let contradiction: PeftoolError?
  /// The number of quantized weights that are sound.
  let weightCount: Int

  init(_ model: Checkpoint, _ config: JSON?) {
    let (weights, faults) = QuantizedWeight.scan(model)
    self.faults = faults
    weightCount = weights.count
    contradiction = faults.isEmpty ? Self.contradiction(weights, config) : nil
  }

  private static func contradiction(
    _ weights: [QuantizedWeight], _ config: JSON?
  ) -> PeftoolError? {
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
      let (isFourBit, type) =
        switch weight.form {
        case .rows: (false, "int8")
        case .blocks(let state, _): (true, state.code.rawValue)
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
