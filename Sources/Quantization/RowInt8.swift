import CKernels

/// LLM.int8: rows of a weight in 8 bits, each with its largest magnitude (`SCB`).
///
/// The bits are those of bitsandbytes 0.50.2 on a CPU (`int8_vectorwise_quant` in
/// `backends/default/ops.py`), for values that have been rounded to F16.
package enum RowInt8 {
  /// Codes rows: round(x · ((1 / absmax) · 127)), ties to even.
  package static func quantize(
    _ x: Span<Float>, rows: Int, columns: Int, into codes: inout MutableRawSpan,
    absmax: inout MutableSpan<Float>
  ) {
    precondition(x.count >= rows * columns && codes.byteCount >= rows * columns)
    precondition(absmax.count >= rows)
    // The pointers live through the call, and the preconditions hold the kernel to the counts.
    unsafe x.withUnsafeBufferPointer { x in
      unsafe codes.withUnsafeMutableBytes { codes in
        unsafe absmax.withUnsafeMutableBufferPointer {
          unsafe pef_quantize_int8(
            x.baseAddress, rows, columns, codes.assumingMemoryBound(to: Int8.self).baseAddress,
            $0.baseAddress)
        }
      }
    }
  }

  /// y = code · absmax · (1 / 127), each step rounded to f32.
  package static func dequantize(
    _ codes: RawSpan, absmax: Span<Float>, rows: Int, columns: Int,
    into y: inout MutableSpan<Float>
  ) {
    precondition(y.count >= rows * columns && codes.byteCount >= rows * columns)
    precondition(absmax.count >= rows)
    // As in quantize.
    unsafe codes.withUnsafeBytes { codes in
      unsafe absmax.withUnsafeBufferPointer { absmax in
        unsafe y.withUnsafeMutableBufferPointer {
          unsafe pef_dequantize_int8(
            codes.assumingMemoryBound(to: Int8.self).baseAddress, absmax.baseAddress, rows,
            columns, $0.baseAddress)
        }
      }
    }
  }

  /// The same for a tile: `rows` rows of `columns` elements, `row` apart, from the element `first` on
  /// of codes whose rows' scales `absmax` has.
  package static func dequantizeTile(
    _ codes: RawSpan, absmax: Span<Float>, first: Int, row: Int, rows: Int, columns: Int,
    into tile: inout MutableSpan<Float>
  ) {
    guard rows > 0, columns > 0 else { return }
    precondition(first >= 0 && row >= columns && tile.count >= rows * columns)
    precondition(codes.byteCount >= first + (rows - 1) * row + columns && absmax.count >= rows)
    // As in quantize.
    unsafe codes.withUnsafeBytes { codes in
      unsafe absmax.withUnsafeBufferPointer { absmax in
        unsafe tile.withUnsafeMutableBufferPointer {
          unsafe pef_dequantize_int8_tile(
            codes.assumingMemoryBound(to: Int8.self).baseAddress.map { unsafe $0 + first },
            absmax.baseAddress, row, rows, columns, $0.baseAddress)
        }
      }
    }
  }
}
