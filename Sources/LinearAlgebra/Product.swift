import COpenBLAS
import Files

/// Which operands of a product stand for their transposes.
package struct Transposition: OptionSet, Sendable {
  package let rawValue: Int

  package init(rawValue: Int) { self.rawValue = rawValue }

  /// The first operand.
  package static let left = Transposition(rawValue: 1)
  /// The second operand.
  package static let right = Transposition(rawValue: 2)

  /// CBLAS's word for the first operand.
  var ofLeft: Int32 { Int32(contains(.left) ? PEF_TRANSPOSED : PEF_AS_IT_IS) }
  /// CBLAS's word for the second operand.
  var ofRight: Int32 { Int32(contains(.right) ? PEF_TRANSPOSED : PEF_AS_IT_IS) }
}

/// The rows or columns of a product that one call of GEMM makes.
///
/// The cuts are the same for any number of threads, and so are the bytes of the product.
private let sliceLength = 512

/// The product op(a)·op(b), op(a) (m, k) and op(b) (k, n) the operands or their transposes.
///
/// Shapes: a (m, k) or, transposed, (k, m); b (k, n) or (n, k); the result (m, n), zeros where
/// k = 0. Precision: sums in the operands' own, in an order that depends on the kind of processor
/// but not on `threads`. Source: BLAS `gemm`.
package func product<Scalar: BLASScalar>(
  _ a: Matrix<Scalar>, _ b: Matrix<Scalar>, transposing: Transposition = [], threads: Int = 1
) -> Matrix<Scalar> {
  let isLeft = transposing.contains(.left)
  let isRight = transposing.contains(.right)
  let (rows, inner) = isLeft ? (a.columns, a.rows) : (a.rows, a.columns)
  let columns = isRight ? b.rows : b.columns
  precondition(inner == (isRight ? b.columns : b.rows), "as many columns as the other has rows")
  var result = Matrix<Scalar>(rows: rows, columns: columns)
  guard rows > 0, columns > 0, inner > 0 else { return result }

  // Where the product is cut, and how far its slices lie apart in what they are made of.
  let isCutByRows = rows >= columns
  let length = isCutByRows ? rows : columns
  let stepA = isCutByRows ? (isLeft ? 1 : a.columns) : 0
  let stepB = isCutByRows ? 0 : (isRight ? b.columns : 1)
  let stepC = isCutByRows ? columns : 1
  // The pointers live through the closures. A slice reads what its rows or columns of the product
  // need, inside the operands by the checks above, and writes these alone: slices do not overlap.
  unsafe a.elements.withUnsafeBufferPointer { a0 in
    unsafe b.elements.withUnsafeBufferPointer { b0 in
      unsafe result.elements.withUnsafeMutableBufferPointer { c0 in
        guard let a0 = a0.baseAddress, let b0 = b0.baseAddress, let c0 = c0.baseAddress else {
          return
        }
        forEachSlice(of: length, threads: threads) { start, count in
          unsafe Scalar.gemm(
            transposing, rows: blasCount(isCutByRows ? count : rows),
            columns: blasCount(isCutByRows ? columns : count), inner: blasCount(inner),
            a0 + start * stepA, strideA: blasCount(a.columns),
            b0 + start * stepB, strideB: blasCount(b.columns),
            c0 + start * stepC, strideC: blasCount(columns))
        }
      }
    }
  }
  return result
}

private func forEachSlice(
  of length: Int, threads: Int, _ body: (_ start: Int, _ count: Int) -> Void
) {
  let count = (length + sliceLength - 1) / sliceLength
  // No slice fails.
  try? forEachBlock(count: count, threads: threads) { queue, current in
    while let slice = queue.next() {
      current = slice
      let start = slice * sliceLength
      body(start, min(sliceLength, length - start))
    }
  }
}
