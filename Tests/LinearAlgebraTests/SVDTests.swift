import Files
import Glibc
import LinearAlgebra
import Testing

@Suite struct SVDTests {
  private func check<Scalar: BLASScalar>(
    _ svd: SVD<Scalar>, of matrix: Matrix<Double>, _ tolerance: Double
  ) {
    let least = min(matrix.rows, matrix.columns)
    #expect(svd.u.rows == matrix.rows && svd.u.columns == least)
    #expect(svd.vt.rows == least && svd.vt.columns == matrix.columns)
    #expect(Matrices.distance(Matrices.rebuilt(svd), matrix) < tolerance)
    #expect(Matrices.skew(ofColumns: svd.u) < tolerance)
    #expect(Matrices.skew(ofColumns: svd.vt.transposed()) < tolerance)
    #expect(svd.singularValues == svd.singularValues.sorted(by: >))
    #expect(svd.singularValues.allSatisfy { $0 >= 0 })
    for column in 0..<least {
      let vector = (0..<matrix.rows).map { svd.u[$0, column] }
      let largest = vector.map(\.magnitude).max() ?? 0
      #expect((vector.first { $0.magnitude == largest } ?? 0) > 0)
    }
  }

  @Test(arguments: [
    (1, 1), (5, 3), (3, 5), (4, 4), (90, 20), (20, 90), (50, 50), (0, 3), (3, 0), (0, 0), (1, 7),
    (7, 1),
  ])
  func factorsRebuildTheMatrix(rows: Int, columns: Int) throws {
    let matrix = Matrices.random(rows, columns)
    check(try SVD(matrix), of: matrix, doubleTolerance)
    check(try SVD(Matrix<Float>(matrix)), of: matrix, floatTolerance)
  }

  @Test func plantedValuesAreFound() throws {
    let values = (0..<20).map { 3 * pow(0.5, Double($0)) }
    let matrix = Matrices.graded(60, 40, values)
    let svd = try SVD(matrix)
    check(svd, of: matrix, doubleTolerance)
    for (index, value) in svd.singularValues.enumerated() {
      #expect((value - (index < 20 ? values[index] : 0)).magnitude < doubleTolerance)
    }
  }

  /// The extreme values of Hilbert matrices are in Fettis and Caslin (1967): of size 10 the largest
  /// is 1.75191967026518.
  @Test func hilbertsMatrixHasItsValues() throws {
    let values = try SVD.singularValues(of: Matrices.hilbert(10))
    #expect((values[0] - 1.75191967026518).magnitude < 1e-14)
    // 1.09315381937967e-13, of which the matrix's own rounding leaves some digits.
    #expect((values[9] - 1.0931538e-13).magnitude < 1e-16)
    #expect((try SVD(Matrices.hilbert(10)).singularValues[0] - values[0]).magnitude < 1e-14)
  }

  @Test func signsMakeTheLargestEntryPositive() throws {
    // −2·e₂·e₁ᵀ.
    let svd = try SVD(Matrix<Double>(rows: 2, columns: 2, elements: [0, 0, -2, 0]))
    #expect(svd.u[1, 0] == 1 && svd.vt[0, 0] == -1)
    // Hadamard's matrix, negated: entries of one magnitude, values of one size.
    let matrix = Matrix<Double>(
      rows: 4, columns: 4,
      elements: [-1, -1, -1, -1, -1, 1, -1, 1, -1, -1, 1, 1, -1, 1, 1, -1])
    check(try SVD(matrix), of: matrix, doubleTolerance)
  }

  @Test func valuesAloneAreTheSame() throws {
    let matrix = Matrices.random(70, 50)
    for (a, b) in zip(try SVD.singularValues(of: matrix), try SVD(matrix).singularValues) {
      #expect((a - b).magnitude < doubleTolerance)
    }
    #expect(try SVD.singularValues(of: Matrix<Float>(rows: 3, columns: 2)) == [0, 0])
    #expect(try SVD.singularValues(of: Matrix<Float>(rows: 0, columns: 2)) == [])
  }

  @Test func extremeMagnitudesSurvive() throws {
    for scale in [Float.greatestFiniteMagnitude / 4, .leastNormalMagnitude * 4] {
      let values = try SVD.singularValues(
        of: Matrix<Float>(rows: 2, columns: 2, elements: [scale, 0, 0, -scale / 2]))
      #expect((values[0] / scale - 1).magnitude < 1e-6)
      #expect((values[1] / scale - 0.5).magnitude < 1e-6)
    }
  }

  @Test(arguments: [Double.nan, .infinity, -.infinity])
  func whatIsNotFiniteIsRefused(value: Double) {
    var matrix = Matrices.random(5, 3)
    matrix[2, 1] = value
    let error = PeftoolError(
      .damaged, "singular values need finite numbers; row 2, column 1 holds \(value)")
    #expect(throws: error) { try SVD(matrix) }
    #expect(throws: error) { try SVD.singularValues(of: matrix) }
  }

  @Test func theNearestMatrixOfARankIsTheFirstVectors() throws {
    let matrix = Matrices.random(12, 9)
    let svd = try SVD(matrix)
    let cut = svd.truncated(to: 4)
    #expect(cut.singularValues == Array(svd.singularValues.prefix(4)))
    var rest = Matrices.rebuilt(cut)
    for place in rest.elements.indices { rest.elements[place] -= matrix.elements[place] }
    let left = svd.singularValues.dropFirst(4).reduce(0) { $0 + $1 * $1 }
    #expect((Matrices.squaredNorm(rest) - left).magnitude < doubleTolerance)
    #expect(svd.truncated(to: 0).u == Matrix(rows: 12, columns: 0))
    #expect(svd.truncated(to: 99).vt == svd.vt)
  }
}
