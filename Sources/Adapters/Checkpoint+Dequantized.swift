package import Checkpoints
package import Files
import JSON
package import Tensors

extension Checkpoint {
  /// A quantized model as what its codes stand for, with a configuration that does not call it
  /// quantized.
  ///
  /// A 4-bit weight of bitsandbytes has the type that it had before. LLM.int8 and group-wise INT4 do
  /// not tell that: their weights have `otherDType`, or where that is nil the type of the
  /// configuration.
  /// - Throws: `unsupported` where nothing is quantized that peftool knows; `damaged` and `different`
  ///   where the tensors of a weight do not fit each other.
  package func dequantized(otherDType: DType? = nil) throws(PeftoolError) -> Checkpoint {
    var config = try modelConfig
    if let method = config?["quantization_config"]?["quant_method"],
      !BaseModel.isKnown(quantMethod: method)
    {
      throw PeftoolError(
        .unsupported,
        "is quantized by \(method.summary), expected \"bitsandbytes\", \"gptq\", \"awq\" or \"hqq\"",
        path: path)
    }
    let quantized = try QuantizedWeight.all(in: self)
    guard !quantized.isEmpty else {
      throw PeftoolError(
        .unsupported, "has no weight that is quantized (bitsandbytes, MLX, GPTQ, AWQ or HQQ)",
        path: path)
    }
    let otherDType = otherDType ?? BaseModel.dtype(config)
    var weights: [DequantizedSource.Weight] = []
    for weight in quantized {
      let module = weight.name.moduleOfWeight ?? weight.name
      guard let isTransposed = BaseModel.isConv1D(module, config) else {
        throw PeftoolError(
          .unsupported,
          "may be a Conv1D's, which lies turned around: config.json with its "
            + "model_type has to lie beside it", tensor: weight.codes.name, path: path)
      }
      weights.append(
        .init(weight, dtype: weight.dtype(else: otherDType), isTransposed: isTransposed))
    }
    config = config?.splitQuantization().rest
    return viewed(through: DequantizedSource(source, weights: weights), config: config)
  }

  /// The model that adapters fit: itself, or where it is quantized what its codes stand for.
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
  /// The type of the weight before, where the file tells, else another.
  fileprivate func dtype(else other: DType?) -> DType {
    switch form {
    case .blocks(let state, _): state.dtype
    case .rows: other ?? .f16
    case .groups(let weight): other ?? weight.scales.dtype
    }
  }
}

extension String {
  /// The path of the module whose `weight` this names.
  package var moduleOfWeight: String? {
    hasSuffix(".weight") ? String(dropLast(".weight".count)) : nil
  }
}
