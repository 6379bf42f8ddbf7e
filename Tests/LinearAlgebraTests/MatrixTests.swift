import LinearAlgebra
import Testing

@Suite struct MatrixTests {
  @Test func elementsLieRowByRow() {
    var matrix = Matrix<Float>(rows: 2, columns: 3, elements: [1, 2, 3, 4, 5, 6])
    #expect(matrix[1, 0] == 4)
    matrix[0, 2] = 7
    #expect(matrix.elements == [1, 2, 7, 4, 5, 6])
    #expect(Matrix<Double>(rows: 2, columns: 2).elements == [0, 0, 0, 0])
  }

  @Test(arguments: [(0, 0), (0, 3), (3, 0), (1, 5), (37, 64), (65, 33)])
  func transposesSwapIndices(rows: Int, columns: Int) {
    let matrix = Matrices.random(rows, columns)
    let transposed = matrix.transposed()
    #expect(transposed.rows == columns && transposed.columns == rows)
    for i in 0..<rows { for j in 0..<columns { #expect(transposed[j, i] == matrix[i, j]) } }
    #expect(Matrix<Float>(matrix).transposed() == Matrix<Float>(transposed))
  }

  @Test func precisionsConvertWithOneRounding() {
    let matrix = Matrix<Double>(rows: 1, columns: 3, elements: [0.1, 1e300, -0.0])
    let narrow = Matrix<Float>(matrix)
    #expect(narrow.elements == [0.1, .infinity, 0])
    #expect(narrow.elements[2].sign == .minus)
    #expect(Matrix<Double>(narrow).elements[0] == Double(Float(0.1)))
  }

  @Test func firstRowsAndColumnsAreCopied() {
    let matrix = Matrix<Float>(rows: 2, columns: 3, elements: [1, 2, 3, 4, 5, 6])
    #expect(matrix.firstRows(1).elements == [1, 2, 3])
    #expect(matrix.firstColumns(2).elements == [1, 2, 4, 5])
    #expect(matrix.firstColumns(0) == Matrix(rows: 2, columns: 0))
  }
}
