import LinearAlgebra
import Testing

@Suite struct QRTests {
  private func check<Scalar: BLASScalar>(_ matrix: Matrix<Scalar>, _ tolerance: Double) {
    let qr = QR(matrix)
    let least = min(matrix.rows, matrix.columns)
    #expect(qr.q.rows == matrix.rows && qr.q.columns == least)
    #expect(qr.r.rows == least && qr.r.columns == matrix.columns)
    #expect(Matrices.skew(ofColumns: qr.q) < tolerance)
    let rebuilt = Matrices.plainProduct(Matrix(qr.q), Matrix(qr.r))
    #expect(Matrices.distance(rebuilt, matrix) < tolerance)
    for i in 0..<least { for j in 0..<min(i, matrix.columns) { #expect(qr.r[i, j] == 0) } }
  }

  @Test(arguments: [
    (1, 1), (5, 3), (3, 5), (4, 4), (200, 40), (40, 200), (0, 3), (3, 0), (0, 0), (1, 7), (7, 1),
  ])
  func factorsRebuildTheMatrix(rows: Int, columns: Int) {
    let matrix = Matrices.random(rows, columns)
    check(matrix, doubleTolerance)
    check(Matrix<Float>(matrix), floatTolerance)
  }

  @Test func withoutFullRankColumnsStayOrthonormal() {
    check(Matrix<Double>(rows: 6, columns: 4), doubleTolerance)
    check(Matrices.graded(30, 20, [3, 2, 1]), doubleTolerance)
    check(Matrices.hilbert(12), doubleTolerance)
  }

  @Test func whatIsNotFiniteIsPassedOn() {
    var matrix = Matrices.random(9, 4)
    matrix[3, 1] = .nan
    let qr = QR(matrix)
    #expect(qr.q.elements.contains(where: \.isNaN) && qr.r.elements.contains(where: \.isNaN))
  }
}
