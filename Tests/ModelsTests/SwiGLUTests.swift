import CKernels
import Glibc
import Testing

@testable import Models

private func silu(_ a: Double) -> Double { a / (1 + exp(-a)) }

private func siluDerivative(_ a: Double) -> Double {
  let sigma = 1 / (1 + exp(-a))
  return sigma * (1 + a * (1 - sigma))
}

/// The distance from the nearest f32 in units of its last place.
private func ulps(_ found: Float, _ expected: Double) -> Double {
  abs(Double(found) - expected) / Double(Float(expected).ulp)
}

@Suite struct SwiGLUTests {
  @Test(arguments: [1, 15, 16, 33])
  func theGateIsTheFormula(columns: Int) {
    let count = 65
    let (a, b) = (randomRows(count, columns, seed: 1), randomRows(count, columns, seed: 2))
    for row in 0..<count { a[row, 0] *= Float(row) }
    let (m, work) = (Rows(count, columns), workspace())
    SwiGLU.forward(a, b, into: m, work)
    #expect(error(m.values, zip(a.doubles, b.doubles).map { silu($0) * $1 }) < f32Tolerance)

    let (da, db) = (randomRows(count, columns, seed: 3), Rows(count, columns))
    let dm = da.doubles
    SwiGLU.backward(a, b, dmThenDa: da, db: db, work)
    let (aa, bb) = (a.doubles, b.doubles)
    let expected = dm.indices.map { dm[$0] * bb[$0] * siluDerivative(aa[$0]) }
    #expect(error(da.values, expected) < f32Tolerance)
    #expect(error(db.values, dm.indices.map { dm[$0] * silu(aa[$0]) }) < f32Tolerance)
  }

  @Test func theTwinsGradientIsThatOfItsForward() {
    let a: [Double] = [-30, -3, -1, -0.1, 0, 0.2, 1, 5, 40]
    let differences = centralDifferences(at: a) { $0.reduce(0) { $0 + silu($1) } }
    #expect(error(a.map(siluDerivative), differences) < differenceTolerance)
  }

  /// What cross-entropy leaves of a row is e to the power of each number less the largest.
  @Test func exponentialsAreWithinAUnitInTheLastPlace() {
    let count = 40_000
    var z = (0..<count).map { -87 * Float($0) / Float(count - 1) }
    let x = z
    var losses = [0.0]
    pef_cross_entropy_f32(&z, [0], &losses, 1, count, 0, 0)
    let worst = zip(z, x).reduce(0) { max($0, ulps($1.0, exp(Double($1.1)))) }
    #expect(worst <= 1)
    #expect(z[0] == 1)
  }

  @Test func exponentialsStayWithinF32() {
    var z: [Float] = [0, -87, -88, -1e30, -.infinity]
    var losses = [0.0]
    pef_cross_entropy_f32(&z, [0], &losses, 1, z.count, 0, 0)
    #expect(z[1] > 0 && z[2] == z[1] && z[3] == z[1] && z[4] == z[1])
  }

  /// A product, a quotient and an exponential, each of them rounded.
  @Test func gatesAreWithinAFewUnitsInTheLastPlace() {
    let count = 40_000
    let a = (0..<count).map { -86 + 172 * Float($0) / Float(count - 1) }
    var m = [Float](repeating: 0, count: count)
    pef_swiglu_forward_f32(&m, a, [Float](repeating: 1, count: count), count)
    #expect(zip(m, a).reduce(0) { max($0, ulps($1.0, silu(Double($1.1)))) } <= 4)
  }

  @Test func greatNumbersAndNaNPassThrough() {
    var m = [Float](repeating: 0, count: 4)
    pef_swiglu_forward_f32(&m, [1000, -1000, .nan, .infinity], [2, 2, 2, 2], 4)
    #expect(m[0] == 2000 && abs(m[1]) < 1e-30 && m[2].isNaN && m[3] == .infinity)
  }
}
