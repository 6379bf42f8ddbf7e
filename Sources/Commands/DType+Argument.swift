import Tensors

extension DType {
  /// The dtype that a user names among some, spelt as in safetensors or in PyTorch, in any case:
  /// `bf16`, `BFloat16`, `F8_E4M3`, `float8_e4m3fn`; nil for none of them.
  init?(argument: String, among dtypes: [DType]) {
    let name = argument.lowercased()
    let found = dtypes.first { $0.rawValue.lowercased() == name || $0.torchName == name }
    guard let found else { return nil }
    self = found
  }

  /// The dtypes that numbers are converted to.
  static let convertible: [DType] = [.f32, .f16, .bf16, .f8E4M3, .f8E5M2, .f64]
}
