import Files
import LinearAlgebra
import Tensors

// A weight as a matrix (out, in), whatever way it lies in the file.
extension BaseWeight {
  /// The elements that a block has, or one row where that is longer.
  private static let blockElementCount = 1 << 18

  /// The outputs.
  var outputCount: Int { isTransposed ? stored.columnCount : stored.rowCount }
  /// The inputs.
  var inputCount: Int { isTransposed ? stored.rowCount : stored.columnCount }

  /// Its values in f32, (out, in).
  ///
  /// Memory: the result, once more where it lies turned around, and a block.
  /// - Throws: `io`, `damaged` where one is not finite.
  func values() throws(PeftoolError) -> Matrix<Float> { oriented(try stored(minus: nil).values) }

  /// What has to be added to another weight of the same shape to get this one, (out, in); taken in
  /// f64 and rounded once to f32; and the norm of the other weight.
  ///
  /// Memory and errors: as `values`.
  func change(
    from other: BaseWeight
  ) throws(PeftoolError) -> (change: Matrix<Float>, otherNorm: Double) {
    let (change, otherNorm) = try storedChange(from: other)
    return (oriented(change), otherNorm)
  }

  /// The same as it lies in the file, without a second copy where that is turned around.
  func storedChange(
    from other: BaseWeight
  ) throws(PeftoolError) -> (change: Matrix<Float>, otherNorm: Double) {
    let (values, squaredOther) = try stored(minus: other.stored)
    return (values, squaredOther.squareRoot())
  }

  private func oriented(_ matrix: Matrix<Float>) -> Matrix<Float> {
    isTransposed ? matrix.transposed() : matrix
  }

  private func stored(
    minus other: StoredTensor?
  ) throws(PeftoolError) -> (values: Matrix<Float>, squaredOther: Double) {
    var squaredOther = 0.0
    let (rows, columns) = (stored.rowCount, stored.columnCount)
    var elements: [Float] = []
    elements.reserveCapacity(rows * columns)
    let step = max(1, Self.blockElementCount / max(1, columns))
    for start in stride(from: 0, to: rows, by: step) {
      let range = start..<min(start + step, rows)
      var block = try stored.values(rows: range)
      if let other {
        let others = try other.values(rows: range)
        squaredOther += Double.sumOfSquares(others.span, at: 0, count: others.count)
        var span = block.mutableSpan
        Double.addScaled(others.span, by: -1, to: &span, count: others.count)
      }
      elements +=
        Matrix<Float>(
          Matrix<Double>(rows: range.count, columns: columns, elements: block)
        ).elements
    }
    return (Matrix(rows: rows, columns: columns, elements: elements), squaredOther)
  }
}

extension Matrix<Float> {
  /// ‖M‖², in f64.
  var squaredNorm: Double { Float.sumOfSquares(elements.span, at: 0, count: elements.count) }

  /// ‖M_o‖² of each row, in f64.
  var squaredRowNorms: [Double] {
    (0..<rows).map { Float.sumOfSquares(elements.span, at: $0 * columns, count: columns) }
  }

  /// ⟨M_o, N_o⟩ of each row with that of another matrix of the same shape, in f64.
  func rowProducts(with other: Matrix) -> [Double] {
    precondition(rows == other.rows && columns == other.columns, "matrices of one shape")
    return (0..<rows).map {
      Float.sumOfProducts(
        elements.span, other.elements.span, at: $0 * columns, count: columns)
    }
  }

  /// Adds rows of another matrix of the same shape, each times its factor.
  mutating func add(_ other: Matrix, scaling factors: [Float]) {
    precondition(rows == other.rows && columns == other.columns, "matrices of one shape")
    var elements = self.elements
    defer { self.elements = elements }
    var span = elements.mutableSpan
    for row in 0..<rows {
      Float.addScaled(
        other.elements.span, by: factors[row], to: &span, at: row * columns, count: columns)
    }
  }
}
