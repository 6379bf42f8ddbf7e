import LinearAlgebra
import Models

extension Matrix<Float> {
  /// A copy of rows.
  init(_ rows: Rows) {
    self.init(rows: rows.count, columns: rows.columns, elements: rows.values)
  }
}
