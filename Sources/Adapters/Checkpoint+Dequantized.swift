package import Checkpoints
package import Files
import JSON
package import Tensors

extension Checkpoint {
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
    let rowDType = rowDType ?? BaseModel.dtype(config) ?? .f16
    var weights: [DequantizedSource.Weight] = []
    for weight in quantized {
      let module = weight.codes.name.moduleOfWeight ?? weight.codes.name
      guard let isTransposed = BaseModel.isConv1D(module, config) else {
        throw PeftoolError(
          .unsupported,
          "may be a Conv1D's, which bitsandbytes has turned around: config.json with its "
            + "model_type has to lie beside it", tensor: weight.codes.name, path: path)
      }
      weights.append(.init(weight, dtype: weight.dtype ?? rowDType, isTransposed: isTransposed))
    }
    if case .object(let members) = config {
      config = .object(members.filter { $0.key != "quantization_config" })
    }
    return viewed(through: DequantizedSource(source, weights: weights), config: config)
  }

  /// The model that adapters fit: itself, or where bitsandbytes has quantized it what its codes
  /// stand for.
  ///
  /// - Throws: as `dequantized`.
  package var adaptable: Checkpoint {
    get throws(PeftoolError) {
      if isAdapter || kind == .gguf { return self }
      return try QuantizedWeight.all(in: self).isEmpty ? self : dequantized()
    }
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
