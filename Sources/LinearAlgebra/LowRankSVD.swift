package import Files

/// The singular value decomposition of an update in its factors, B·A, which is never formed.
///
/// With B = Q_B·R_B and Aᵀ = Q_A·R_A it is that of the small core R_B·R_Aᵀ, between Q_B and Q_Aᵀ.
/// Shapes: B (out, R), A (R, in); the core is min(out, R) × min(in, R). Takes O((out + in)·R²)
/// time and memory for a few copies of the factors, in Double whatever they are.
package enum LowRankSVD {
  /// Decomposes B·A; k = min(out, in, R), of which those beyond the rank of B·A are zero but for
  /// rounding.
  ///
  /// Precision: Double throughout; a value has an error of some 1e-16 times the product of the
  /// largest values of B and A. Source: QR and SVD as `QR` and `SVD` have them.
  ///
  /// - Throws: as `SVD` does.
  package static func of(
    _ b: Matrix<some BLASScalar>, _ a: Matrix<some BLASScalar>
  ) throws(PeftoolError) -> SVD<Double> {
    precondition(b.columns == a.rows, "factors of one rank")
    let left = QR(Matrix<Double>(b))
    let right = QR(Matrix<Double>(a).transposed())
    let core = try SVD(product(left.r, right.r, transposing: .right))
    return SVD(
      u: product(left.q, core.u), singularValues: core.singularValues,
      vt: product(core.vt, right.q, transposing: .right))
  }
}
