/// The thin QR factorization of a matrix: M = Q·R.
///
/// Shapes: M (m, n), Q (m, k), R (k, n), k = min(m, n); each may be 0. Q's columns are orthonormal
/// whatever the rank of M; R is upper triangular, its diagonal of either sign. Precision: the
/// matrix's own. What is not finite in M makes Q and R so. Source: LAPACK `geqrf`, `orgqr`.
package struct QR<Scalar: BLASScalar>: Sendable {
  /// Q, (m, k).
  package let q: Matrix<Scalar>
  /// R, (k, n).
  package let r: Matrix<Scalar>

  /// Factors a matrix.
  ///
  /// Takes memory for two more of its size.
  package init(_ matrix: Matrix<Scalar>) {
    let (rows, columns) = (matrix.rows, matrix.columns)
    let least = min(rows, columns)
    guard least > 0 else {
      q = Matrix(rows: rows, columns: 0)
      r = Matrix(rows: 0, columns: columns)
      return
    }
    // By columns, as LAPACK has it.
    var factors = matrix.transposed().elements
    var tau = [Scalar](repeating: 0, count: least)
    _ = withWorkspace { work, count in
      Scalar.geqrf(
        rows: blasCount(rows), columns: blasCount(columns), &factors, tau: &tau, work: &work,
        workCount: count)
    }
    var r = Matrix<Scalar>(rows: columns, columns: least)
    for column in 0..<columns {
      let count = min(column + 1, least)
      let (from, to) = (column * rows, column * least)
      r.elements.replaceSubrange(to..<to + count, with: factors[from..<from + count])
    }
    self.r = r.transposed()
    factors.removeLast(factors.count - rows * least)
    _ = withWorkspace { work, count in
      Scalar.orgqr(
        rows: blasCount(rows), columns: blasCount(least), reflectors: blasCount(least), &factors,
        tau: tau, work: &work, workCount: count)
    }
    q = Matrix(rows: least, columns: rows, elements: factors).transposed()
  }
}
