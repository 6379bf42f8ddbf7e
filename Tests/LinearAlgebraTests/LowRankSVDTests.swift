import Files
import LinearAlgebra
import Testing

@Suite struct LowRankSVDTests {
  @Test(arguments: [
    (40, 6, 30), (30, 6, 40), (8, 8, 8), (5, 20, 30), (30, 20, 5), (4, 9, 3), (6, 1, 7),
    (0, 2, 5), (5, 2, 0), (5, 0, 4),
  ])
  func itIsTheDecompositionOfTheProduct(out: Int, rank: Int, inputs: Int) throws {
    let b = Matrices.random(out, rank)
    let a = Matrices.random(rank, inputs, seed: 2)
    let whole = product(b, a)
    let svd = try LowRankSVD.of(b, a)
    #expect(svd.singularValues.count == min(out, rank, inputs))
    #expect(Matrices.distance(Matrices.rebuilt(svd), whole) < doubleTolerance)
    #expect(Matrices.skew(ofColumns: svd.u) < doubleTolerance)
    #expect(Matrices.skew(ofColumns: svd.vt.transposed()) < doubleTolerance)
    let direct = try SVD(whole).truncated(to: svd.singularValues.count)
    for (a, b) in zip(svd.singularValues, direct.singularValues) {
      #expect((a - b).magnitude < doubleTolerance)
    }
    // Values of random matrices are distinct, so with the signs fixed the vectors agree.
    #expect(Matrices.distance(svd.u, direct.u) < 1e-10)
  }

  @Test func floatFactorsAreDecomposedInDouble() throws {
    let b = Matrix<Float>(Matrices.random(20, 3))
    let a = Matrix<Float>(Matrices.random(3, 10, seed: 2))
    let svd = try LowRankSVD.of(b, a)
    let whole = product(Matrix<Double>(b), Matrix<Double>(a))
    #expect(Matrices.distance(Matrices.rebuilt(svd), whole) < doubleTolerance)
  }

  @Test func valuesBeyondTheRankVanish() throws {
    // The second column of B repeats the first.
    let column = Matrices.random(9, 1)
    var b = Matrix<Double>(rows: 9, columns: 2)
    for row in 0..<9 { (b[row, 0], b[row, 1]) = (column[row, 0], column[row, 0]) }
    let svd = try LowRankSVD.of(b, Matrices.random(2, 7))
    #expect(svd.singularValues[0] > 0.1 && svd.singularValues[1] < doubleTolerance)
    let zero = try LowRankSVD.of(b, Matrix<Double>(rows: 2, columns: 7))
    #expect(zero.singularValues == [0, 0])
  }

  @Test func whatIsNotFiniteIsRefused() {
    var b = Matrices.random(9, 2)
    b[3, 1] = .infinity
    #expect { try LowRankSVD.of(b, Matrices.random(2, 7)) } throws: {
      ($0 as? PeftoolError)?.kind == .damaged
    }
  }
}
