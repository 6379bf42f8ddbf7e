package import Files

/// A matrix that is known by its products alone, as one that is streamed from a file.
package protocol LinearOperator<Scalar> {
  /// The precision of its products.
  associatedtype Scalar: BLASScalar

  /// The number of rows of M.
  var rows: Int { get }
  /// The number of columns of M.
  var columns: Int { get }

  /// M·x, (rows, c), of x (columns, c).
  func times(_ matrix: Matrix<Scalar>) throws(PeftoolError) -> Matrix<Scalar>

  /// Mᵀ·x, (columns, c), of x (rows, c).
  ///
  /// A sum over blocks of rows is to be taken in their order, so that nothing depends on threads.
  func transposedTimes(_ matrix: Matrix<Scalar>) throws(PeftoolError) -> Matrix<Scalar>
}

extension Matrix: LinearOperator {
  /// The product with a matrix on the right, (rows, c).
  package func times(_ matrix: Matrix) -> Matrix { product(self, matrix) }

  /// The transpose's product with a matrix on the right, (columns, c).
  package func transposedTimes(_ matrix: Matrix) -> Matrix {
    product(self, matrix, transposing: .left)
  }
}
