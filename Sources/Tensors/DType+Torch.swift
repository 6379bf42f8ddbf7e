extension DType {
  /// The name in PyTorch, as `config.json` has it; nil for a dtype that no model is computed in.
  package var torchName: String? {
    switch self {
    case .f64: "float64"
    case .f32: "float32"
    case .f16: "float16"
    case .bf16: "bfloat16"
    case .f8E4M3: "float8_e4m3fn"
    case .f8E5M2: "float8_e5m2"
    default: nil
    }
  }
}
