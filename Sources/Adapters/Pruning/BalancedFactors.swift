import LinearAlgebra

// The pruning of A and B. How long row i of A is, and how long column i of B, is arbitrary: only
// their product counts. Entries of both can be compared once the two are of one length.

extension Pair {
  /// The same product with ‖b_i‖ = ‖a_i‖ for each rank i; both are 0 where one is.
  func balanced() -> Pair {
    let lengths = (0..<rank).map { place in
      (a: length(ofRow: place), b: length(ofColumn: place))
    }
    let factors = lengths.map { $0.a > 0 && $0.b > 0 ? ($0.b / $0.a).squareRoot() : 0 }
    return Pair(
      a: a.scaled(rows: factors), b: b.scaled(columns: factors.map { $0 > 0 ? 1 / $0 : 0 }))
  }

  /// With the largest entries of A and B together, the density's share of all, rounded down.
  ///
  /// The rest becomes 0. Of equal ones the first are kept, those of A before those of B.
  func keepingLargest(density: Double) -> Pair {
    let all = a.elements + b.elements
    let kept = all.keepingLargest(density: density)
    return Pair(
      a: Matrix(
        rows: a.rows, columns: a.columns, elements: Array(kept.prefix(a.elements.count))),
      b: Matrix(
        rows: b.rows, columns: b.columns, elements: Array(kept.dropFirst(a.elements.count))))
  }

  /// Without the ranks of which a row of A or a column of B is 0: the same product.
  ///
  /// One is left where all are such.
  func withoutEmptyRanks() -> Pair {
    let kept = (0..<rank).filter { length(ofRow: $0) > 0 && length(ofColumn: $0) > 0 }
    guard kept.count < rank else { return self }
    guard !kept.isEmpty else { return .nothing(rows: b.rows, columns: a.columns) }
    return Pair(
      a: Matrix(
        rows: kept.count, columns: a.columns,
        elements: kept.flatMap { a.elements[$0 * a.columns..<($0 + 1) * a.columns] }),
      b: Matrix(joining: kept.map { b.columns($0..<$0 + 1) }))
  }

  /// How many entries of A and B are not 0.
  var filledCount: Int { a.elements.count { $0 != 0 } + b.elements.count { $0 != 0 } }

  private func length(ofRow row: Int) -> Double {
    Array(a.elements[row * a.columns..<(row + 1) * a.columns]).length
  }

  private func length(ofColumn column: Int) -> Double {
    stride(from: column, to: b.elements.count, by: b.columns).map { b.elements[$0] }.length
  }
}

extension [Double] {
  /// The Euclidean norm; squares neither over- nor underflow.
  fileprivate var length: Double {
    let largest = reduce(0) { Swift.max($0, $1.magnitude) }
    guard largest > 0 else { return 0 }
    return largest * reduce(0) { $0 + ($1 / largest) * ($1 / largest) }.squareRoot()
  }
}
