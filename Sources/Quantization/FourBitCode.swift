import CKernels
package import Tensors

/// A 4-bit code of bitsandbytes: sixteen values between -1 and 1, times the largest magnitude of a
/// block of elements (`absmax`).
///
/// The bits are those of bitsandbytes 0.50.2 on a CPU, whatever the machine; `CKernels.h` says how
/// they are chosen.
package enum FourBitCode: String, CaseIterable, Sendable {
  /// The quantiles of a normal distribution (QLoRA, appendix E).
  case nf4
  /// Sign, two bits of exponent, one of mantissa.
  case fp4

  private var kernel: pef_code4 { self == .nf4 ? PEF_NF4 : PEF_FP4 }

  /// The values of codes 0 to 15.
  package var levels: [Float] {
    var levels = [Float](repeating: 0, count: 16)
    // The kernel writes sixteen numbers.
    unsafe levels.withUnsafeMutableBufferPointer { unsafe pef_levels4(kernel, $0.baseAddress) }
    return levels
  }

  /// The block sizes that bitsandbytes has.
  package static let blockSizes = [32, 64, 128, 256, 512, 1024, 2048, 4096]

  /// The bytes that codes take: two in a byte.
  package static func byteCount(of count: Int) -> Int { count / 2 + count % 2 }

  /// The blocks of a tensor, the last of which may be shorter.
  package static func blockCount(of count: Int, blockSize: Int) -> Int {
    count / blockSize + (count % blockSize == 0 ? 0 : 1)
  }

  /// Codes `count` elements; only a tensor's last elements may end within a block.
  ///
  /// A scale is NaN or infinite exactly where an element of its block is.
  package func quantize(
    _ x: Span<Float>, count: Int, blockSize: Int, into packed: inout MutableRawSpan,
    absmax: inout MutableSpan<Float>
  ) {
    precondition(Self.blockSizes.contains(blockSize) && x.count >= count)
    precondition(packed.byteCount >= Self.byteCount(of: count))
    precondition(absmax.count >= Self.blockCount(of: count, blockSize: blockSize))
    // The pointers live through the call, and the preconditions hold the kernel to the counts.
    unsafe x.withUnsafeBufferPointer { x in
      unsafe packed.withUnsafeMutableBytes { packed in
        unsafe absmax.withUnsafeMutableBufferPointer {
          unsafe pef_quantize4(
            kernel, x.baseAddress, count, blockSize,
            packed.assumingMemoryBound(to: UInt8.self).baseAddress, $0.baseAddress)
        }
      }
    }
  }

  /// The scales alone, for elements of F32, F16 or BF16 as they lie in a file.
  package static func absmax(
    _ bytes: RawSpan, _ dtype: DType, count: Int, blockSize: Int,
    into absmax: inout MutableSpan<Float>
  ) {
    let kernel: pef_dtype? =
      switch dtype {
      case .f32: PEF_F32
      case .f16: PEF_F16
      case .bf16: PEF_BF16
      default: nil
      }
    guard let kernel else { preconditionFailure("no scales for \(dtype)") }
    precondition(bytes.byteCount >= count * dtype.bitCount / 8)
    precondition(absmax.count >= blockCount(of: count, blockSize: blockSize))
    // As in quantize.
    unsafe bytes.withUnsafeBytes { x in
      unsafe absmax.withUnsafeMutableBufferPointer {
        unsafe pef_absmax(kernel, x.baseAddress, count, blockSize, $0.baseAddress)
      }
    }
  }

  /// y = level · absmax, rounded to f32.
  package func dequantize(
    _ packed: RawSpan, absmax: Span<Float>, count: Int, blockSize: Int,
    into y: inout MutableSpan<Float>
  ) {
    precondition(blockSize > 0 && blockSize % 2 == 0 && y.count >= count)
    precondition(packed.byteCount >= Self.byteCount(of: count))
    precondition(absmax.count >= Self.blockCount(of: count, blockSize: blockSize))
    // As in quantize.
    unsafe packed.withUnsafeBytes { packed in
      unsafe absmax.withUnsafeBufferPointer { absmax in
        unsafe y.withUnsafeMutableBufferPointer {
          unsafe pef_dequantize4(
            kernel, packed.assumingMemoryBound(to: UInt8.self).baseAddress, absmax.baseAddress,
            count, blockSize, $0.baseAddress)
        }
      }
    }
  }

  /// The products of some rows of a matrix of codes with a vector, in f32 over 16 partial sums.
  ///
  /// The rows lie without gaps, the first from the element `first` on; they, `first` and the blocks
  /// are of multiples of 16 elements.
  package func multiplyRows(
    _ packed: RawSpan, absmax: Span<Float>, blockSize: Int, first: Int, rows: Int,
    by x: Span<Float>, into y: inout MutableSpan<Float>
  ) {
    guard rows > 0, x.count > 0 else { return }
    let end = first + rows * x.count
    precondition(first >= 0 && blockSize > 0 && y.count >= rows, "a number a row")
    precondition((first | blockSize | x.count) % 16 == 0, "whole groups of codes")
    precondition(packed.byteCount >= Self.byteCount(of: end), "rows that there are")
    precondition(absmax.count >= Self.blockCount(of: end, blockSize: blockSize))
    // As in quantize.
    unsafe packed.withUnsafeBytes { packed in
      unsafe absmax.withUnsafeBufferPointer { absmax in
        unsafe x.withUnsafeBufferPointer { x in
          unsafe y.withUnsafeMutableBufferPointer {
            unsafe pef_codes4_times_vector_f32(
              kernel, packed.assumingMemoryBound(to: UInt8.self).baseAddress, absmax.baseAddress,
              blockSize, first, x.baseAddress, rows, x.count, $0.baseAddress)
          }
        }
      }
    }
  }

  /// The same for a tile: `rows` rows of `columns` elements, `row` elements apart in the matrix that
  /// the codes are of, from the element `first` on.
  package func dequantizeTile(
    _ packed: RawSpan, absmax: Span<Float>, blockSize: Int, first: Int, row: Int, rows: Int,
    columns: Int, into tile: inout MutableSpan<Float>
  ) {
    guard rows > 0, columns > 0 else { return }
    let end = first + (rows - 1) * row + columns
    precondition(first >= 0 && row >= columns && blockSize > 0 && blockSize % 2 == 0)
    precondition(packed.byteCount >= Self.byteCount(of: end) && tile.count >= rows * columns)
    precondition(absmax.count >= Self.blockCount(of: end, blockSize: blockSize))
    // As in quantize.
    unsafe packed.withUnsafeBytes { packed in
      unsafe absmax.withUnsafeBufferPointer { absmax in
        unsafe tile.withUnsafeMutableBufferPointer {
          unsafe pef_dequantize4_tile(
            kernel, packed.assumingMemoryBound(to: UInt8.self).baseAddress, absmax.baseAddress,
            blockSize, first, row, rows, columns, $0.baseAddress)
        }
      }
    }
  }
}
