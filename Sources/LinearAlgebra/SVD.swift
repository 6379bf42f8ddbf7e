package import Files

/// The thin singular value decomposition of a matrix: M = U·diag(σ)·Vᵀ.
///
/// Shapes: M (m, n), U (m, k), σ (k), Vᵀ (k, n), k = min(m, n) or the rank it is cut to; each may
/// be 0. The values descend. Of each column of U the entry of largest magnitude, the first such,
/// is positive; so the factors of distinct values are unique.
package struct SVD<Scalar: BLASScalar>: Sendable {
  /// The left singular vectors, as columns, (m, k).
  package let u: Matrix<Scalar>
  /// The singular values, in descending order.
  package let singularValues: [Scalar]
  /// The right singular vectors, as rows, (k, n).
  package let vt: Matrix<Scalar>

  /// The decomposition of given factors, whose signs it fixes.
  package init(u: Matrix<Scalar>, singularValues: [Scalar], vt: Matrix<Scalar>) {
    precondition(u.columns == singularValues.count && vt.rows == u.columns, "factors that fit")
    let isFlipped = pointsDown(u.elements, columns: u.columns)
    var (u, vt) = (u, vt)
    flipColumns(isFlipped, of: &u.elements)
    flipRows(isFlipped, of: &vt.elements, columns: vt.columns)
    self.u = u
    self.singularValues = singularValues
    self.vt = vt
  }

  /// Decomposes a matrix.
  ///
  /// Precision: the matrix's own. Source: LAPACK `gesdd`. Takes O(m·n·k) time, and memory for the matrix once more and about 4·k² elements beyond the
  /// factors.
  ///
  /// - Throws: `damaged` where the matrix holds what is not finite, `unsupported` where LAPACK does
  ///   not converge or cannot count its workspace (k above 23,000).
  package init(_ matrix: Matrix<Scalar>) throws(PeftoolError) {
    let (rows, columns) = (matrix.rows, matrix.columns)
    let least = min(rows, columns)
    // By columns, as LAPACK has it, the matrix is its transpose; so U and Vᵀ change places.
    var u = Matrix<Scalar>(rows: rows, columns: least)
    var vt = Matrix<Scalar>(rows: least, columns: columns)
    let values = try decompose(matrix, u: &u.elements, vt: &vt.elements)
    self.init(u: u, singularValues: values, vt: vt)
  }

  /// The singular values alone, in descending order; a fraction of the time.
  ///
  /// - Throws: as the decomposition does.
  package static func singularValues(
    of matrix: Matrix<Scalar>
  ) throws(PeftoolError) -> [Scalar] {
    var (u, vt): ([Scalar], [Scalar]) = ([], [])
    return try decompose(matrix, u: &u, vt: &vt)
  }

  /// The decomposition's first so many values and vectors, or all where there are fewer: of all
  /// matrices of that rank it is the nearest to M (Eckart, Young 1936).
  package func truncated(to rank: Int) -> SVD {
    let rank = min(rank, singularValues.count)
    return SVD(
      u: u.firstColumns(rank), singularValues: Array(singularValues.prefix(rank)),
      vt: vt.firstRows(rank))
  }
}

/// Calls `gesdd`; without vectors where the arrays for them are empty.
private func decompose<Scalar: BLASScalar>(
  _ matrix: Matrix<Scalar>, u: inout [Scalar], vt: inout [Scalar]
) throws(PeftoolError) -> [Scalar] {
  let (rows, columns) = (matrix.rows, matrix.columns)
  if let place = firstNotFinite(matrix.elements) {
    throw PeftoolError(
      .damaged,
      "singular values need finite numbers; row \(place / columns), column \(place % columns) "
        + "holds \(matrix.elements[place])")
  }
  let least = min(rows, columns)
  guard least > 0 else { return [] }
  // What gesdd asks for at most, by its documentation and with room for its blocks.
  guard u.isEmpty || 4 * least * least + 7 * least + 128 * (rows + columns) <= Int32.max else {
    throw PeftoolError(
      .unsupported,
      "the singular vectors of a \(rows) × \(columns) matrix need more workspace than LAPACK "
        + "can count")
  }
  var elements = matrix.elements
  var values = [Scalar](repeating: 0, count: least)
  var integers = [Int32](repeating: 0, count: 8 * least)
  let info = withWorkspace { work, count in
    Scalar.gesdd(
      rows: blasCount(columns), columns: blasCount(rows), &elements, s: &values, u: &vt, vt: &u,
      work: &work, workCount: count, integers: &integers)
  }
  guard info == 0 else {
    throw PeftoolError(
      .unsupported, "the singular values of a \(rows) × \(columns) matrix do not converge")
  }
  return values
}

@specialized(where Scalar == Float)
@specialized(where Scalar == Double)
private func firstNotFinite<Scalar: BLASScalar>(_ elements: [Scalar]) -> Int? {
  elements.firstIndex { !$0.isFinite }
}

/// Of each column, whether its first entry of largest magnitude is negative.
@specialized(where Scalar == Float)
@specialized(where Scalar == Double)
private func pointsDown<Scalar: BLASScalar>(_ elements: [Scalar], columns: Int) -> [Bool] {
  var largest = [Scalar](repeating: 0, count: columns)
  for start in stride(from: 0, to: elements.count, by: max(1, columns)) {
    for column in 0..<columns
    where elements[start + column].magnitude > largest[column].magnitude {
      largest[column] = elements[start + column]
    }
  }
  return largest.map { $0 < 0 }
}

@specialized(where Scalar == Float)
@specialized(where Scalar == Double)
private func flipColumns<Scalar: BLASScalar>(_ isFlipped: [Bool], of elements: inout [Scalar]) {
  for start in stride(from: 0, to: elements.count, by: max(1, isFlipped.count)) {
    for column in isFlipped.indices where isFlipped[column] {
      elements[start + column].negate()
    }
  }
}

@specialized(where Scalar == Float)
@specialized(where Scalar == Double)
private func flipRows<Scalar: BLASScalar>(
  _ isFlipped: [Bool], of elements: inout [Scalar], columns: Int
) {
  for row in isFlipped.indices where isFlipped[row] {
    for place in row * columns..<(row + 1) * columns { elements[place].negate() }
  }
}
