package import Tensors

/// A tensor of the merged model: where its values come from and what is done with them.
package struct OutputTensor: Sendable {
  /// Its name in the merged model.
  package let name: String
  /// The dtype that is written.
  package let dtype: DType
  /// The tensor that it starts from: the base's, or in its place an adapter's own of another size.
  package let base: StoredTensor
  /// The dtype of the base model's tensor; `base` may have another where it is an adapter's.
  package let baseDType: DType
  /// Whether an adapter's own values take the base's place altogether.
  package var isOwn = false
  /// What the adapters do with it, in their order.
  package let changes: [WeightedChange]
  /// Whether the rounding of its sums is measured.
  package var isMeasured = false
  /// The file of the base beside whose tensors it is written.
  package let fileIndex: Int

  /// A change with the weight of its adapter.
  package struct WeightedChange: Sendable {
    /// What the adapter does.
    package let change: Change
    /// The factor of its whole change.
    package let weight: Double
  }

  /// The elements of a row, of which the tensor is a matrix: all dimensions but the first, or for
  /// fused experts the last.
  package var columnCount: Int { hasExperts ? base.shape.last ?? 1 : base.columnCount }
  /// The rows of that matrix.
  package var rowCount: Int {
    hasExperts ? base.info.elementCount / max(1, columnCount) : base.rowCount
  }

  private var hasExperts: Bool {
    changes.contains { weighted in
      guard case .lowRank(let d) = weighted.change.update, case .experts = d.layout else {
        return false
      }
      return true
    }
  }

  /// Whether an adapter has a part in its values.
  package var isChanged: Bool { isOwn || !changes.isEmpty }
  /// Whether its bytes are those of `base`.
  package var isCopy: Bool { changes.isEmpty && dtype == base.dtype && dtype == baseDType }
  /// Whether the arithmetic is done in f64: always where f32 would be no wider than the values.
  package var isWide: Bool { baseDType.isWide || dtype.isWide }
  /// The bytes that are written.
  package var byteCount: Int { base.info.elementCount * dtype.bitCount / 8 }
}
