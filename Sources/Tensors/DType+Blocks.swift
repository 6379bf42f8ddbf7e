import CKernels

extension DType {
  /// How a type of blocks is laid out.
  struct BlockLayout {
    let kernel: pef_block_type
    let elementCount: Int
    let byteCount: Int

    init(_ kernel: pef_block_type, _ elementCount: Int, _ byteCount: Int) {
      (self.kernel, self.elementCount, self.byteCount) = (kernel, elementCount, byteCount)
    }
  }

  /// The dtypes that safetensors has, in the order of its list.
  package static let safetensors = allCases.filter { !$0.isBlock }

  /// Whether elements come in blocks that only make sense whole; no dtype of safetensors does.
  package var isBlock: Bool { block != nil }

  /// The types of blocks that peftool writes.
  package static let quantizable: [DType] = [.q8v0, .q4v0, .q4v1, .q5v0, .q5v1]

  /// The elements of a block; 1 where there are none.
  package var blockElementCount: Int { block?.elementCount ?? 1 }

  /// The bytes that `count` elements take, which fill whole blocks, or whole bytes.
  package func byteCount(of count: Int) -> Int {
    guard let block else { return count * bitCount / 8 }
    return count / block.elementCount * block.byteCount
  }

  /// How many of the blocks of `count` elements have a scale that is NaN or infinite, in one of
  /// the `quantizable` types: those whose numbers were, or were too large.
  package func nonfiniteBlockCount(_ bytes: RawSpan, count: Int) -> Int {
    guard let block, Self.quantizable.contains(self) else {
      preconditionFailure("\(self) is not written")
    }
    precondition(bytes.byteCount >= byteCount(of: count))
    // The kernel reads the blocks that have been counted.
    return unsafe bytes.withUnsafeBytes {
      unsafe pef_count_nonfinite_blocks(
        block.kernel, $0.baseAddress, count / block.elementCount)
    }
  }

  /// The layout; nil for a dtype of safetensors.
  ///
  /// Q8_1 has the 36 bytes of today's ggml, not the 40
  /// that the Python package gguf 0.19 says.
  var block: BlockLayout? {
    switch self {
    case .q1v0: BlockLayout(PEF_Q1_0, 128, 18)
    case .q4v0: BlockLayout(PEF_Q4_0, 32, 18)
    case .q4v1: BlockLayout(PEF_Q4_1, 32, 20)
    case .q5v0: BlockLayout(PEF_Q5_0, 32, 22)
    case .q5v1: BlockLayout(PEF_Q5_1, 32, 24)
    case .q8v0: BlockLayout(PEF_Q8_0, 32, 34)
    case .q8v1: BlockLayout(PEF_Q8_1, 32, 36)
    case .q2K: BlockLayout(PEF_Q2_K, 256, 84)
    case .q3K: BlockLayout(PEF_Q3_K, 256, 110)
    case .q4K: BlockLayout(PEF_Q4_K, 256, 144)
    case .q5K: BlockLayout(PEF_Q5_K, 256, 176)
    case .q6K: BlockLayout(PEF_Q6_K, 256, 210)
    case .q8K: BlockLayout(PEF_Q8_K, 256, 292)
    case .iq1S: BlockLayout(PEF_IQ1_S, 256, 50)
    case .iq1M: BlockLayout(PEF_IQ1_M, 256, 56)
    case .iq2XXS: BlockLayout(PEF_IQ2_XXS, 256, 66)
    case .iq2XS: BlockLayout(PEF_IQ2_XS, 256, 74)
    case .iq2S: BlockLayout(PEF_IQ2_S, 256, 82)
    case .iq3XXS: BlockLayout(PEF_IQ3_XXS, 256, 98)
    case .iq3S: BlockLayout(PEF_IQ3_S, 256, 110)
    case .iq4NL: BlockLayout(PEF_IQ4_NL, 32, 18)
    case .iq4XS: BlockLayout(PEF_IQ4_XS, 256, 136)
    case .tq1v0: BlockLayout(PEF_TQ1_0, 256, 54)
    case .tq2v0: BlockLayout(PEF_TQ2_0, 256, 66)
    case .mxfp4: BlockLayout(PEF_MXFP4, 32, 17)
    case .nvfp4: BlockLayout(PEF_NVFP4, 64, 36)
    default: nil
    }
  }
}

extension Real {
  /// Computes the values of `count` elements, which fill whole blocks, in f32 as ggml does.
  static func dequantize(
    _ bytes: RawSpan, _ dtype: DType, into values: inout MutableSpan<Self>, count: Int
  ) {
    guard let block = dtype.block else { preconditionFailure("\(dtype) has no blocks") }
    precondition(count % block.elementCount == 0)
    precondition(bytes.byteCount >= dtype.byteCount(of: count) && values.count >= count)
    // The kernels read and write whole blocks: no more than the bytes and elements counted above.
    unsafe bytes.withUnsafeBytes { from in
      unsafe values.withUnsafeMutableBufferPointer { to in
        if let to = unsafe to as? UnsafeMutableBufferPointer<Float> {
          unsafe pef_dequantize_f32(
            block.kernel, from.baseAddress, to.baseAddress, count / block.elementCount)
          return
        }
        unsafe withUnsafeTemporaryAllocation(of: Float.self, capacity: block.elementCount) {
          singles in
          for place in 0..<count / block.elementCount {
            unsafe pef_dequantize_f32(
              block.kernel, from.baseAddress.map { unsafe $0 + place * block.byteCount },
              singles.baseAddress, 1)
            for element in 0..<block.elementCount {
              unsafe to[place * block.elementCount + element] = Self(singles[element])
            }
          }
        }
      }
    }
  }
}

extension Float {
  /// Writes the first `count` elements: narrowed with one rounding, or as blocks, which they fill.
  ///
  /// Blocks have the bytes of the Python package gguf; the dtype is computable, or one of
  /// `quantizable`.
  package static func write(
    _ values: Span<Float>, _ dtype: DType, into bytes: inout MutableRawSpan, count: Int
  ) {
    guard let block = dtype.block else {
      narrow(values, dtype, into: &bytes, count: count)
      return
    }
    precondition(DType.quantizable.contains(dtype) && count % block.elementCount == 0)
    precondition(bytes.byteCount >= dtype.byteCount(of: count) && values.count >= count)
    // The kernel reads and writes whole blocks: no more than the elements and bytes counted above.
    unsafe values.withUnsafeBufferPointer { from in
      unsafe bytes.withUnsafeMutableBytes {
        unsafe pef_quantize_f32(
          block.kernel, from.baseAddress, $0.baseAddress, count / block.elementCount)
      }
    }
  }
}
