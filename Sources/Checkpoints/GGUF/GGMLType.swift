import Tensors

/// ggml's numbers for the types of tensors, as a GGUF file has them.
enum GGMLType {
  /// The dtype of a number; nil where ggml has none of that number, or none any more.
  static func dtype(_ number: UInt32) -> DType? { dtypes[number] }

  /// The number of a dtype; nil where ggml has no such type.
  static func number(_ dtype: DType) -> UInt32? { dtypes.first { $0.value == dtype }?.key }

  /// The name of a type that ggml once had.
  static func removedName(_ number: UInt32) -> String? { removed[number] }

  private static let dtypes: [UInt32: DType] = [
    0: .f32, 1: .f16, 2: .q4v0, 3: .q4v1, 6: .q5v0, 7: .q5v1, 8: .q8v0, 9: .q8v1, 10: .q2K,
    11: .q3K, 12: .q4K, 13: .q5K, 14: .q6K, 15: .q8K, 16: .iq2XXS, 17: .iq2XS, 18: .iq3XXS,
    19: .iq1S, 20: .iq4NL, 21: .iq3S, 22: .iq2S, 23: .iq4XS, 24: .i8, 25: .i16, 26: .i32,
    27: .i64, 28: .f64, 29: .iq1M, 30: .bf16, 34: .tq1v0, 35: .tq2v0, 39: .mxfp4, 40: .nvfp4,
    41: .q1v0,
  ]

  private static let removed: [UInt32: String] = [
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
  ]
}
