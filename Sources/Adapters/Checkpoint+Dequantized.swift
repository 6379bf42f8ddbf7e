package import Checkpoints
package import Files
import JSON
package import Tensors

extension Checkpoint {
  /// Whether its `config.json` says that bitsandbytes has quantized it.
  ///
  /// - Throws: as `modelConfig`.
  package var isQuantizedByBitsAndBytes: Bool {
    get throws(PeftoolError) {
      try modelConfig?["quantization_config"]?["quant_method"] == .string("bitsandbytes")
    }
  }

  /// A model that bitsandbytes has quantized as what its codes stand for, with a configuration that
  /// does not call it quantized.
  ///
  /// A 4-bit weight has the type that it had before. LLM.int8 does not tell that: its weights have
  /// `rowDType`, or where that is nil the type of the configuration.
  /// - Throws: `unsupported` where bitsandbytes has quantized nothing; `damaged` and `different`
  ///   where the tensors of a weight do not fit each other.
  package func dequantized(rowDType: DType? = nil) throws(PeftoolError) -> Checkpoint {
    var config = try modelConfig
    if let method = config?["quantization_config"]?["quant_method"],
      method != .string("bitsandbytes")
    {
      throw PeftoolError(
        .unsupported, "is quantized by \(method.summary), expected \"bitsandbytes\"", path: path)
    }
    let quantized = try QuantizedWeight.all(in: self)
    guard !quantized.isEmpty else {
      throw PeftoolError(
        .unsupported, "has no weight that bitsandbytes has quantized", path: path)
    }
    var modelType = ""
    if case .string(let type) = config?["model_type"] { modelType = type }
    let rowDType = rowDType ?? Self.computedDType(config)
    let weights = quantized.map { weight in
      let module = weight.codes.name.moduleOfWeight ?? weight.codes.name
      return DequantizedSource.Weight(
        weight, dtype: weight.dtype ?? rowDType,
        isTransposed: BaseModel.isConv1D(module, modelType: modelType))
    }
    if case .object(let members) = config {
      config = .object(members.filter { $0.key != "quantization_config" })
    }
    return viewed(through: DequantizedSource(source, weights: weights), config: config)
  }

  /// The type that `config.json` says a model is computed in.
  private static func computedDType(_ config: JSON?) -> DType {
    for key in ["dtype", "torch_dtype"] {
      if case .string(let name) = config?[key], let found = FourBitState.dtype(named: name) {
        return found
      }
    }
    return .f16
  }
}

extension QuantizedWeight {
  /// The type of the weight before, where the file tells.
  fileprivate var dtype: DType? {
    if case .blocks(let state, _) = form { state.dtype } else { nil }
  }
}

extension String {
  /// The path of the module whose `weight` this names.
  package var moduleOfWeight: String? {
    hasSuffix(".weight") ? String(dropLast(".weight".count)) : nil
  }
}
