package import Quantization
package import Tensors

/// How a weight in group-wise INT4 lies in a file: which tensors it has, and how codes are packed.
///
/// `Formats/int4.md` describes them.
package enum Int4Layout: String, CaseIterable, Sendable {
  /// MLX's affine mode: codes by rows, and an offset a group.
  case mlx
  /// GPTQ: codes by columns, and a zero point a group, less 1.
  case gptq
  /// The same with zero points as they are.
  case gptqV2 = "gptq_v2"
  /// AWQ's gemm: codes by columns, eight rows a word in an order of their own.
  case awq
  /// HQQ: codes by halves of the weight, and a zero point a group that is any number.
  case hqq

  /// A tensor: what follows the module's path in its name, its type and shape.
  package struct Part: Sendable {
    /// Such as `.qweight`.
    package let ending: String
    /// The type of its elements.
    package let dtype: DType
    /// Its sizes.
    package let shape: [Int]
  }

  /// The ending of the tensor of codes.
  package var codesEnding: String {
    switch self {
    case .mlx: ".weight"
    case .gptq, .gptqV2, .awq: ".qweight"
    case .hqq: ".W_q"
    }
  }
  /// The ending of the tensor of scales.
  package var scalesEnding: String { self == .hqq ? ".scale" : ".scales" }
  /// The ending of the tensor of offsets or zero points.
  package var shiftsEnding: String {
    switch self {
    case .mlx: ".biases"
    case .gptq, .gptqV2, .awq: ".qzeros"
    case .hqq: ".zero"
    }
  }
  /// What a group has besides its scale.
  package var shift: GroupInt4.Shift {
    switch self {
    case .mlx: .offsets
    case .gptq, .gptqV2, .awq: .zeros
    case .hqq: .realZeros
    }
  }
  /// Whether scales, and offsets or zero points, lie row by row.
  var hasGroupsByRows: Bool { self == .mlx || self == .hqq }
  /// The order of zero points in a word.
  package var nibbleOrder: GroupInt4.NibbleOrder { self == .awq ? .awq : .inOrder }
  /// What zero points are stored less of.
  package var zeroOffset: Int { self == .gptq ? 1 : 0 }
  /// The types that scales may have.
  package var scaleDTypes: [DType] { hasGroupsByRows ? [.f32, .f16, .bf16] : [.f16] }

  /// The codes of a weight (outputs, inputs).
  package func codes(_ outputs: Int, _ inputs: Int, groupSize: Int) -> Part {
    switch self {
    case .mlx: Part(ending: codesEnding, dtype: .u32, shape: [outputs, inputs / 8])
    case .gptq, .gptqV2: Part(ending: codesEnding, dtype: .i32, shape: [inputs / 8, outputs])
    case .awq: Part(ending: codesEnding, dtype: .i32, shape: [inputs, outputs / 8])
    case .hqq:
      Part(
        ending: codesEnding, dtype: .u8, shape: [outputs * inputs / groupSize / 2, groupSize])
    }
  }

  /// The scales of so many groups a row.
  package func scales(_ outputs: Int, groups: Int, _ dtype: DType) -> Part {
    Part(ending: scalesEnding, dtype: dtype, shape: shape(outputs, groups))
  }

  /// The offsets or zero points.
  package func shifts(_ outputs: Int, groups: Int, _ dtype: DType) -> Part {
    hasGroupsByRows
      ? Part(ending: shiftsEnding, dtype: dtype, shape: shape(outputs, groups))
      : Part(ending: shiftsEnding, dtype: .i32, shape: [groups, outputs / 8])
  }

  /// The group of each input, where the layout says it; optional when it is read.
  package func groupIndex(_ inputs: Int) -> Part? {
    switch self {
    case .gptq, .gptqV2: Part(ending: ".g_idx", dtype: .i32, shape: [inputs])
    case .mlx, .awq, .hqq: nil
    }
  }

  /// The shape of numbers of groups.
  private func shape(_ outputs: Int, _ groups: Int) -> [Int] {
    switch self {
    case .mlx: [outputs, groups]
    case .gptq, .gptqV2, .awq: [groups, outputs]
    case .hqq: [outputs * groups, 1]
    }
  }
}
