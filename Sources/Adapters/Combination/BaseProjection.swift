import Checkpoints
import Files
import LinearAlgebra
import Tensors

/// What a sum of DoRA updates has to know of a base's weight W: W·Aᵀ and the norms of its rows.
///
/// Both in f64, in one pass over W. With them the norm of any row of W + s·B·A is known without the
/// weight: ‖W_o‖² + 2·s·B_o·(A·W_oᵀ) + s²·B_o·(A·Aᵀ)·B_oᵀ.
///
/// Peak memory: a block of W of some MiB, and the result.
struct BaseProjection: Sendable {
  /// W·Aᵀ, (out, rank).
  let products: Matrix<Double>
  /// ‖W_o‖² of each row.
  let squaredNorms: [Double]
  /// A·Aᵀ, (rank, rank).
  let gram: Matrix<Double>

  private static let blockElementCount = 1 << 18

  /// Reads a weight.
  ///
  /// - Throws: `io`, `damaged` where a value is not finite.
  init(of oriented: BaseWeight, onto a: Matrix<Double>) throws(PeftoolError) {
    gram = product(a, a, transposing: .right)
    let (weight, isTransposed) = (oriented.stored, oriented.isTransposed)
    let (rows, columns) = (weight.rowCount, weight.columnCount)
    let outputs = isTransposed ? columns : rows
    var squaredNorms = [Double](repeating: 0, count: outputs)
    // A list of its own, in which sums are made in place.
    var products = [Double](repeating: 0, count: outputs * a.rows)
    let step = max(1, Self.blockElementCount / max(1, columns))
    for start in stride(from: 0, to: rows, by: step) {
      let range = start..<min(start + step, rows)
      let block = Matrix(
        rows: range.count, columns: columns, elements: try weight.values(rows: range))
      if isTransposed {
        let part = product(
          block, a.columns(range), transposing: [.left, .right])
        for place in products.indices { products[place] += part.elements[place] }
        for row in 0..<range.count {
          for column in 0..<columns {
            let value = block.elements[row * columns + column]
            squaredNorms[column] += value * value
          }
        }
      } else {
        let part = product(block, a, transposing: .right)
        products.replaceSubrange(
          start * a.rows..<range.upperBound * a.rows, with: part.elements)
        for row in 0..<range.count {
          squaredNorms[start + row] = block.elements[row * columns..<(row + 1) * columns]
            .reduce(0) { $0 + $1 * $1 }
        }
      }
    }
    self.products = Matrix(rows: outputs, columns: a.rows, elements: products)
    self.squaredNorms = squaredNorms
  }

  /// ‖W_o + b·A‖ for a row b of B.
  func norm(ofRow row: Int, adding b: ArraySlice<Double>) -> Double {
    energy(ofRow: row, times: 1, adding: b).squareRoot()
  }

  /// DoRA's factor m / ‖W_o + b·A‖ of a row, b its row of s·B.
  ///
  /// - Throws: `damaged` where the row has no length.
  func factor(
    ofRow row: Int, adding b: ArraySlice<Double>, magnitude: Double
  ) throws(PeftoolError) -> Double {
    let norm = norm(ofRow: row, adding: b)
    guard norm > 0 else {
      throw PeftoolError(
        .damaged, "row \(row) of W + s·B·A has no length, which DoRA divides by")
    }
    return magnitude / norm
  }

  /// ‖x·W_o + b·A‖² for a number x and a row b of B.
  func energy(ofRow row: Int, times x: Double, adding b: ArraySlice<Double>) -> Double {
    let rank = gram.rows
    let first = b.startIndex
    var (mixed, square) = (0.0, 0.0)
    for i in 0..<rank {
      mixed += b[first + i] * products.elements[row * rank + i]
      var inner = 0.0
      for j in 0..<rank { inner += gram.elements[i * rank + j] * b[first + j] }
      square += b[first + i] * inner
    }
    return max(0, x * x * squaredNorms[row] + 2 * x * mixed + square)
  }
}

extension StoredTensor {
  /// The values of some rows, of the tensor seen as a matrix.
  ///
  /// - Throws: `io`, `damaged` where one is not finite.
  func values(rows: Range<Int>) throws(PeftoolError) -> [Double] {
    let rowByteCount = columnCount * dtype.bitCount / 8
    var block = Block(byteCount: rows.count * rowByteCount)
    var bytes = block.mutableBytes(rows.count * rowByteCount)
    try source.read(
      info, bytes: rows.lowerBound * rowByteCount..<rows.upperBound * rowByteCount, into: &bytes)
    let count = rows.count * columnCount
    guard dtype.nonfiniteCount(block.bytes(rows.count * rowByteCount), count: count) == 0 else {
      throw at(PeftoolError(.damaged, "has NaN or infinite values"))
    }
    var values = [Double](repeating: 0, count: count)
    var span = values.mutableSpan
    Double.widen(block.bytes(rows.count * rowByteCount), dtype, into: &span, count: count)
    return values
  }
}
