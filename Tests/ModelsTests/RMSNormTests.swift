import CKernels
import Testing

@testable import Models

/// The formulas in f64, for one row.
private enum Twin {
  static func rho(_ x: [Double], _ epsilon: Double) -> Double {
    1 / (dot(x, x) / Double(x.count) + epsilon).squareRoot()
  }

  static func forward(_ x: [Double], _ w: [Double], _ epsilon: Double) -> [Double] {
    let rho = rho(x, epsilon)
    return zip(x, w).map { $0 * rho * $1 }
  }

  static func backward(
    _ dy: [Double], _ x: [Double], _ w: [Double], _ epsilon: Double
  ) -> [Double] {
    let rho = rho(x, epsilon)
    let g = zip(w, dy).map { $0 * $1 }
    let mean = dot(g, x) * rho / Double(x.count)
    return zip(g, x).map { rho * ($0 - $1 * rho * mean) }
  }
}

@Suite struct RMSNormTests {
  @Test(arguments: [1, 2, 5, 16, 17, 64, 100])
  func rowsAreNormalizedAndTheirGradientsAdded(columns: Int) {
    let count = 70
    let epsilon: Float = 1e-2
    let (x, dy) = (randomRows(count, columns, seed: 1), randomRows(count, columns, seed: 2))
    let norm = RMSNorm(weight: randomRows(1, columns, seed: 3), epsilon: epsilon)
    let (y, rho) = (Rows(count, columns), Rows(1, count))
    let work = workspace()
    norm.forward(x, into: y, rho: rho, work)
    let dx = randomRows(count, columns, seed: 4)
    let before = dx.doubles
    norm.backward(dy, x: x, rho: rho, addingTo: dx, work)

    let w = norm.weight.doubles
    for row in 0..<count {
      let (xs, dys) = (x.rows(row..<row + 1).doubles, dy.rows(row..<row + 1).doubles)
      let own = row * columns..<(row + 1) * columns
      #expect(error([rho[0, row]], [Twin.rho(xs, Double(epsilon))]) < f32Tolerance)
      let expected = Twin.forward(xs, w, Double(epsilon))
      #expect(error(y.rows(row..<row + 1).values, expected) < f32Tolerance)
      let gradient = Twin.backward(dys, xs, w, Double(epsilon))
      let sum = zip(before[own], gradient).map { $0 + $1 }
      // Of a single column the gradient is all but 0: what is left of products.
      #expect(error(dx.rows(row..<row + 1).values, sum, of: Double(rho[0, row])) < f32Tolerance)
    }
  }

  @Test(arguments: [2, 5, 17]) func theTwinsGradientIsThatOfItsForward(columns: Int) {
    let x = randoms(columns, seed: 5).map(Double.init)
    let dy = randoms(columns, seed: 6).map(Double.init)
    let w = randoms(columns, seed: 7).map(Double.init)
    let differences = centralDifferences(at: x) { dot(dy, Twin.forward($0, w, 1e-2)) }
    #expect(error(Twin.backward(dy, x, w, 1e-2), differences) < differenceTolerance)
  }

  @Test func theWeightsGradientSumsOverTheRows() {
    let (rows, columns) = (9, 21)
    let (x, dy) = (randoms(rows * columns, seed: 1), randoms(rows * columns, seed: 2))
    let rho = randoms(rows, seed: 3)
    var found = randoms(columns, seed: 4)
    let expected = (0..<columns).map { column in
      (0..<rows).reduce(Double(found[column])) { sum, row in
        let place = row * columns + column
        return sum + Double(dy[place]) * Double(x[place]) * Double(rho[row])
      }
    }
    pef_rmsnorm_weight_f32(&found, dy, x, rho, columns, rows, columns)
    #expect(error(found, expected) < f32Tolerance)
  }
}
