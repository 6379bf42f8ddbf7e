/// The element types of safetensors 0.8 (`Dtype` in its `tensor.rs`) and ggml's types of blocks,
/// with upstream's spelling.
package enum DType: String, CaseIterable, Sendable {
  case bool = "BOOL"
  case f4 = "F4"
  case f6E2M3 = "F6_E2M3"
  case f6E3M2 = "F6_E3M2"
  case u8 = "U8"
  case i8 = "I8"
  case f8E5M2 = "F8_E5M2"
  case f8E4M3 = "F8_E4M3"
  case f8E8M0 = "F8_E8M0"
  case f8E4M3FNUZ = "F8_E4M3FNUZ"
  case f8E5M2FNUZ = "F8_E5M2FNUZ"
  case i16 = "I16"
  case u16 = "U16"
  case f16 = "F16"
  case bf16 = "BF16"
  case i32 = "I32"
  case u32 = "U32"
  case f32 = "F32"
  case c64 = "C64"
  case f64 = "F64"
  case i64 = "I64"
  case u64 = "U64"

  // Blocks of ggml, which a GGUF file holds; Formats/gguf.md has their layouts.
  case q1v0 = "Q1_0"
  case q4v0 = "Q4_0"
  case q4v1 = "Q4_1"
  case q5v0 = "Q5_0"
  case q5v1 = "Q5_1"
  case q8v0 = "Q8_0"
  case q8v1 = "Q8_1"
  case q2K = "Q2_K"
  case q3K = "Q3_K"
  case q4K = "Q4_K"
  case q5K = "Q5_K"
  case q6K = "Q6_K"
  case q8K = "Q8_K"
  case iq1S = "IQ1_S"
  case iq1M = "IQ1_M"
  case iq2XXS = "IQ2_XXS"
  case iq2XS = "IQ2_XS"
  case iq2S = "IQ2_S"
  case iq3XXS = "IQ3_XXS"
  case iq3S = "IQ3_S"
  case iq4NL = "IQ4_NL"
  case iq4XS = "IQ4_XS"
  case tq1v0 = "TQ1_0"
  case tq2v0 = "TQ2_0"
  case mxfp4 = "MXFP4"
  case nvfp4 = "NVFP4"

  /// Bits of one element; F4 and F6 are packed.
  ///
  /// Of a block an element's share, rounded up: `byteCount(of:)` is what counts there.
  package var bitCount: Int {
    switch self {
    case .f4: 4
    case .f6E2M3, .f6E3M2: 6
    case .bool, .u8, .i8, .f8E5M2, .f8E4M3, .f8E8M0, .f8E4M3FNUZ, .f8E5M2FNUZ: 8
    case .i16, .u16, .f16, .bf16: 16
    case .i32, .u32, .f32: 32
    case .c64, .f64, .i64, .u64: 64
    default: block.map { ($0.byteCount * 8 + $0.elementCount - 1) / $0.elementCount } ?? 0
    }
  }
}
