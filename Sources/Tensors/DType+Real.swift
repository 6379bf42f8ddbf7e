import CKernels

extension DType {
  /// Whether peftool computes with it; every other dtype is inspected, copied and verified.
  package var isComputable: Bool { kernel != nil }

  /// Whether arithmetic on it is done in f64: where f32 would be no wider than the result.
  package var isWide: Bool { self == .f64 || self == .f32 }

  /// The largest finite number of a computable dtype; f64's for f64.
  package var largestFinite: Double? {
    switch self {
    case .f64: .greatestFiniteMagnitude
    case .f32: Double(Float.greatestFiniteMagnitude)
    case .f16: 65504
    case .bf16: 0x1.FEp127
    case .f8E4M3: 448
    case .f8E5M2: 57344
    default: nil
    }
  }

  var kernel: pef_dtype? {
    switch self {
    case .f64: PEF_F64
    case .f32: PEF_F32
    case .f16: PEF_F16
    case .bf16: PEF_BF16
    case .f8E4M3: PEF_F8_E4M3
    case .f8E5M2: PEF_F8_E5M2
    default: nil
    }
  }

  /// How many of `count` elements are NaN or infinite; 0 for a dtype that has neither.
  package func nonfiniteCount(_ bytes: RawSpan, count: Int) -> Int {
    guard let kernel else { return 0 }
    precondition(bytes.byteCount >= count * bitCount / 8)
    // The kernel reads count elements, which the span has.
    return unsafe bytes.withUnsafeBytes {
      unsafe pef_count_nonfinite(kernel, $0.baseAddress, count)
    }
  }

  /// Widens a tile to f32: `rows` rows of `columns` elements of a computable dtype, `row` elements
  /// apart in the matrix that the bytes are of, from the element `first` on.
  package func widenTile(
    _ bytes: RawSpan, first: Int, row: Int, rows: Int, columns: Int,
    into tile: inout MutableSpan<Float>
  ) {
    guard let kernel else { preconditionFailure("no maths for \(self)") }
    guard rows > 0, columns > 0 else { return }
    let size = bitCount / 8
    precondition(first >= 0 && row >= columns && tile.count >= rows * columns)
    precondition(bytes.byteCount >= (first + (rows - 1) * row + columns) * size)
    // The kernel reads no further than the last element, and writes the tile's.
    unsafe bytes.withUnsafeBytes { bytes in
      unsafe tile.withUnsafeMutableBufferPointer {
        unsafe pef_widen_tile_f32(
          kernel, bytes.baseAddress.map { unsafe $0 + first * size }, row, rows, columns,
          $0.baseAddress)
      }
    }
  }

  /// The products of some rows of a matrix of this type with a vector, in f32 over 16 partial sums.
  ///
  /// - Parameters:
  ///   - bytes: the whole matrix.
  ///   - first: its element with which the first row begins.
  ///   - x: the vector, as long as the matrix's rows.
  ///   - y: a number a row.
  package func multiplyRows(
    _ bytes: RawSpan, first: Int, rows: Int, by x: Span<Float>, into y: inout MutableSpan<Float>
  ) {
    guard let kernel else { preconditionFailure("no maths for \(self)") }
    guard rows > 0 else { return }
    let size = bitCount / 8
    precondition(first >= 0 && y.count >= rows, "a number a row")
    precondition(bytes.byteCount >= (first + rows * x.count) * size, "rows that there are")
    // The kernel reads no further than the last row, and writes a number a row.
    unsafe bytes.withUnsafeBytes { bytes in
      unsafe x.withUnsafeBufferPointer { x in
        unsafe y.withUnsafeMutableBufferPointer {
          unsafe pef_weights_times_vector_f32(
            kernel, bytes.baseAddress.map { unsafe $0 + first * size }, x.count, x.baseAddress,
            rows, x.count, $0.baseAddress)
        }
      }
    }
  }
}
