import CKernels

/// The type that a kernel computes in: `Float` or `Double`.
///
/// The functions below are the kernels of `CKernels.h`, which says what each computes, with their
/// counts checked. Offsets and counts are in elements.
package protocol Real: BinaryFloatingPoint, BitwiseCopyable, Sendable {
  /// The C functions for this type.
  static var kernels: RealKernels<Self> { get }
}

extension Float: Real {
  /// The kernels that compute in f32.
  package static let kernels = unsafe RealKernels<Float>(
    widen: pef_widen_f32, narrow: pef_narrow_f32, lowRank: pef_lowrank_f32, add: pef_add_f32,
    multiply: pef_multiply_f32, scale: pef_scale_f32, clamp: pef_clamp_f32,
    addChange: pef_add_change_f32, addScaled: pef_add_scaled_f32,
    sumOfSquares: pef_sum_squares_f32, sumOfProducts: pef_sum_products_f32,
    sumOfSquaredChange: pef_sum_squared_change_f32,
    addSquares: pef_add_squares_f32, statistics: pef_statistics_f32, compare: pef_compare_f32)
}

extension Double: Real {
  /// The kernels that compute in f64.
  package static let kernels = unsafe RealKernels<Double>(
    widen: pef_widen_f64, narrow: pef_narrow_f64, lowRank: pef_lowrank_f64, add: pef_add_f64,
    multiply: pef_multiply_f64, scale: pef_scale_f64, clamp: pef_clamp_f64,
    addChange: pef_add_change_f64, addScaled: pef_add_scaled_f64,
    sumOfSquares: pef_sum_squares_f64, sumOfProducts: pef_sum_products_f64,
    sumOfSquaredChange: pef_sum_squared_change_f64,
    addSquares: pef_add_squares_f64, statistics: pef_statistics_f64, compare: pef_compare_f64)
}

/// One kernel of each kind, for one `Real`.
@safe
package struct RealKernels<R>: Sendable {
  // The pointers of these functions reach nobody but the extension below.
  typealias Input = UnsafePointer<R>?
  typealias Output = UnsafeMutablePointer<R>?

  let widen: @Sendable (pef_dtype, UnsafeRawPointer?, Output, Int) -> Void
  let narrow: @Sendable (pef_dtype, Input, UnsafeMutableRawPointer?, Int) -> Void
  let lowRank: @Sendable (Output, Input, Input, Int, Int, Int, R) -> Void
  let add: @Sendable (Output, Input, Int) -> Void
  let multiply: @Sendable (Output, Input, Int) -> Void
  let scale: @Sendable (Output, R, Int) -> Void
  let clamp: @Sendable (Output, R, Int) -> Void
  let addChange: @Sendable (Output, Input, Input, R, Int) -> Void
  let addScaled: @Sendable (Output, Input, R, Int) -> Void
  let sumOfSquares: @Sendable (Input, Int) -> Double
  let sumOfProducts: @Sendable (Input, Input, Int) -> Double
  let sumOfSquaredChange: @Sendable (Input, Input, Int) -> Double
  let addSquares: @Sendable (UnsafeMutablePointer<Double>?, Input, Int) -> Void
  let statistics: @Sendable (Input, Int, UnsafeMutablePointer<pef_statistics>?) -> Void
  let compare:
    @Sendable (Input, Input, Int, Double, Double, UnsafeMutablePointer<pef_comparison>?) -> Void
}

// Each pointer below lives through its call, and the preconditions hold the kernel to the counts.
extension Real {
  /// Widens `count` elements of a computable dtype to the start of `values`.
  package static func widen(
    _ bytes: RawSpan, _ dtype: DType, into values: inout MutableSpan<Self>, count: Int
  ) {
    guard let kernel = dtype.kernel else { preconditionFailure("no maths for \(dtype)") }
    precondition(bytes.byteCount >= count * dtype.bitCount / 8 && values.count >= count)
    unsafe bytes.withUnsafeBytes { from in
      unsafe values.withUnsafeMutableBufferPointer {
        unsafe kernels.widen(kernel, from.baseAddress, $0.baseAddress, count)
      }
    }
  }

  /// Narrows the first `count` elements, with one rounding to nearest even.
  package static func narrow(
    _ values: Span<Self>, _ dtype: DType, into bytes: inout MutableRawSpan, count: Int
  ) {
    guard let kernel = dtype.kernel else { preconditionFailure("no maths for \(dtype)") }
    precondition(bytes.byteCount >= count * dtype.bitCount / 8 && values.count >= count)
    unsafe values.withUnsafeBufferPointer { from in
      unsafe bytes.withUnsafeMutableBytes {
        unsafe kernels.narrow(kernel, from.baseAddress, $0.baseAddress, count)
      }
    }
  }

  /// product = scaling · (left · right): left (rows, rank), right (rank, columns).
  package static func lowRank(
    into product: inout MutableSpan<Self>, left: Span<Self>, right: Span<Self>, rows: Int,
    columns: Int, rank: Int, scaling: Self
  ) {
    precondition(
      product.count >= rows * columns && left.count >= rows * rank
        && right.count >= rank * columns)
    unsafe product.withUnsafeMutableBufferPointer { product in
      unsafe left.withUnsafeBufferPointer { left in
        unsafe right.withUnsafeBufferPointer { right in
          unsafe kernels.lowRank(
            product.baseAddress, left.baseAddress, right.baseAddress, rows, columns, rank, scaling)
        }
      }
    }
  }

  /// y += x.
  package static func add(_ x: Span<Self>, to y: inout MutableSpan<Self>, count: Int) {
    precondition(x.count >= count && y.count >= count)
    unsafe x.withUnsafeBufferPointer { x in
      unsafe y.withUnsafeMutableBufferPointer {
        unsafe kernels.add($0.baseAddress, x.baseAddress, count)
      }
    }
  }

  /// y[offset…] ⊙= x.
  package static func multiply(
    _ y: inout MutableSpan<Self>, at offset: Int, by x: Span<Self>, count: Int
  ) {
    precondition(x.count >= count && offset >= 0 && y.count >= offset + count)
    unsafe x.withUnsafeBufferPointer { x in
      unsafe y.withUnsafeMutableBufferPointer {
        unsafe kernels.multiply($0.baseAddress.map { unsafe $0 + offset }, x.baseAddress, count)
      }
    }
  }

  /// y[offset…] *= factor.
  package static func scale(
    _ y: inout MutableSpan<Self>, at offset: Int, by factor: Self, count: Int
  ) {
    precondition(offset >= 0 && y.count >= offset + count)
    unsafe y.withUnsafeMutableBufferPointer {
      unsafe kernels.scale($0.baseAddress.map { unsafe $0 + offset }, factor, count)
    }
  }

  /// Numbers of the first `count` that are beyond ±`limit` become that; NaN and infinity stay.
  package static func clamp(_ x: inout MutableSpan<Self>, to limit: Self, count: Int) {
    precondition(x.count >= count)
    unsafe x.withUnsafeMutableBufferPointer {
      unsafe kernels.clamp($0.baseAddress, limit, count)
    }
  }

  /// y += weight · (x − w).
  package static func addChange(
    from w: Span<Self>, to x: Span<Self>, weight: Self, into y: inout MutableSpan<Self>,
    count: Int
  ) {
    precondition(w.count >= count && x.count >= count && y.count >= count)
    unsafe w.withUnsafeBufferPointer { w in
      unsafe x.withUnsafeBufferPointer { x in
        unsafe y.withUnsafeMutableBufferPointer {
          unsafe kernels.addChange($0.baseAddress, x.baseAddress, w.baseAddress, weight, count)
        }
      }
    }
  }

  /// Σ x², in f64.
  package static func sumOfSquares(_ x: Span<Self>, at offset: Int, count: Int) -> Double {
    precondition(offset >= 0 && x.count >= offset + count)
    return unsafe x.withUnsafeBufferPointer {
      unsafe kernels.sumOfSquares($0.baseAddress.map { unsafe $0 + offset }, count)
    }
  }

  /// y[offset…] += factor · x[offset…].
  package static func addScaled(
    _ x: Span<Self>, by factor: Self, to y: inout MutableSpan<Self>, at offset: Int = 0, count: Int
  ) {
    precondition(offset >= 0 && x.count >= offset + count && y.count >= offset + count)
    unsafe x.withUnsafeBufferPointer { x in
      unsafe y.withUnsafeMutableBufferPointer {
        unsafe kernels.addScaled(
          $0.baseAddress.map { unsafe $0 + offset }, x.baseAddress.map { unsafe $0 + offset },
          factor, count)
      }
    }
  }

  /// Σ x[offset…] · y[offset…], in f64.
  package static func sumOfProducts(
    _ x: Span<Self>, _ y: Span<Self>, at offset: Int, count: Int
  ) -> Double {
    precondition(offset >= 0 && x.count >= offset + count && y.count >= offset + count)
    return unsafe x.withUnsafeBufferPointer { x in
      unsafe y.withUnsafeBufferPointer {
        unsafe kernels.sumOfProducts(
          x.baseAddress.map { unsafe $0 + offset }, $0.baseAddress.map { unsafe $0 + offset },
          count)
      }
    }
  }

  /// Σ (x − w)², in f64.
  package static func sumOfSquaredChange(
    _ x: Span<Self>, from w: Span<Self>, count: Int
  ) -> Double {
    precondition(x.count >= count && w.count >= count)
    return unsafe x.withUnsafeBufferPointer { x in
      unsafe w.withUnsafeBufferPointer {
        unsafe kernels.sumOfSquaredChange(x.baseAddress, $0.baseAddress, count)
      }
    }
  }

  /// sums[j] += x[offset + j]², in f64.
  package static func addSquares(
    of x: Span<Self>, at offset: Int, to sums: inout MutableSpan<Double>, count: Int
  ) {
    precondition(offset >= 0 && x.count >= offset + count && sums.count >= count)
    unsafe x.withUnsafeBufferPointer { x in
      unsafe sums.withUnsafeMutableBufferPointer {
        unsafe kernels.addSquares(
          $0.baseAddress, x.baseAddress.map { unsafe $0 + offset }, count)
      }
    }
  }
}
