/// A dense matrix, held row by row.
///
/// Element (i, j) is `elements[i * columns + j]`. Rows, columns or both may be 0.
package struct Matrix<Scalar: BLASScalar>: Sendable, Equatable {
  /// The number of rows.
  package let rows: Int
  /// The number of columns.
  package let columns: Int
  /// The elements, row by row.
  ///
  /// Another module sets them whole: changing one there copies them all.
  package var elements: [Scalar] {
    didSet { precondition(elements.count == rows * columns, "as many elements as before") }
  }

  /// A matrix of zeros, (rows, columns).
  package init(rows: Int, columns: Int) {
    self.init(
      rows: rows, columns: columns, elements: [Scalar](repeating: 0, count: rows * columns))
  }

  /// A matrix of the given elements, row by row.
  package init(rows: Int, columns: Int, elements: [Scalar]) {
    precondition(rows >= 0 && columns >= 0, "no negative size")
    precondition(elements.count == rows * columns, "rows × columns elements")
    self.rows = rows
    self.columns = columns
    self.elements = elements
  }

  /// The same matrix in another precision: Double rounds to Float to nearest even.
  package init(_ matrix: Matrix<some BLASScalar>) {
    self.init(rows: matrix.rows, columns: matrix.columns, elements: converted(matrix.elements))
  }

  /// The element in a row and a column, both counted from 0.
  package subscript(row: Int, column: Int) -> Scalar {
    get { elements[place(row, column)] }
    set { elements[place(row, column)] = newValue }
  }

  private func place(_ row: Int, _ column: Int) -> Int {
    precondition((0..<rows).contains(row) && (0..<columns).contains(column), "inside the matrix")
    return row * columns + column
  }

  /// The transpose, (columns, rows).
  package func transposed() -> Matrix {
    var transposed = Matrix(rows: columns, columns: rows)
    guard !elements.isEmpty else { return transposed }
    Scalar.omatcopy(
      rows: blasCount(rows), columns: blasCount(columns), elements, &transposed.elements)
    return transposed
  }

  /// The first rows, (count, columns).
  package func firstRows(_ count: Int) -> Matrix {
    precondition((0...rows).contains(count), "no more rows than there are")
    return Matrix(
      rows: count, columns: columns, elements: Array(elements.prefix(count * columns)))
  }

  /// The first columns, (rows, count).
  package func firstColumns(_ count: Int) -> Matrix {
    precondition((0...columns).contains(count), "no more columns than there are")
    var elements: [Scalar] = []
    elements.reserveCapacity(rows * count)
    for row in 0..<rows {
      elements += self.elements[row * columns..<row * columns + count]
    }
    return Matrix(rows: rows, columns: count, elements: elements)
  }
}

extension Matrix {
  /// Matrices of one height, side by side; none are a matrix without rows.
  package init(joining matrices: [Matrix]) {
    let rows = matrices.first?.rows ?? 0
    precondition(matrices.allSatisfy { $0.rows == rows }, "matrices of one height")
    var elements: [Scalar] = []
    elements.reserveCapacity(matrices.reduce(0) { $0 + $1.elements.count })
    for row in 0..<rows {
      for matrix in matrices {
        elements += matrix.elements[row * matrix.columns..<(row + 1) * matrix.columns]
      }
    }
    self.init(
      rows: rows, columns: matrices.reduce(0) { $0 + $1.columns }, elements: elements)
  }

  /// Matrices of one width, one below the other; none are a matrix without columns.
  package init(stacking matrices: [Matrix]) {
    let columns = matrices.first?.columns ?? 0
    precondition(matrices.allSatisfy { $0.columns == columns }, "matrices of one width")
    self.init(
      rows: matrices.reduce(0) { $0 + $1.rows }, columns: columns,
      elements: matrices.flatMap(\.elements))
  }

  /// A range of its rows.
  package func rows(_ range: Range<Int>) -> Matrix {
    Matrix(
      rows: range.count, columns: columns,
      elements: Array(elements[range.lowerBound * columns..<range.upperBound * columns]))
  }

  /// Takes another matrix of the same shape away.
  package mutating func subtract(_ other: Matrix) {
    precondition(rows == other.rows && columns == other.columns, "matrices of one shape")
    subtracted(&elements, other.elements)
  }
}

@specialized(where Scalar == Float)
@specialized(where Scalar == Double)
private func subtracted<Scalar: BLASScalar>(_ elements: inout [Scalar], _ others: [Scalar]) {
  for place in elements.indices { elements[place] -= others[place] }
}

// The specializations are what a caller of another module gets, who would otherwise have each
// element converted through a table of functions.
@specialized(where From == Float, To == Double)
@specialized(where From == Double, To == Float)
private func converted<From: BLASScalar, To: BLASScalar>(_ elements: [From]) -> [To] {
  elements.map { To($0) }
}
