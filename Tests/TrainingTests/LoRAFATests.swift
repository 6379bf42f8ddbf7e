import LinearAlgebra
import Testing

@testable import Models
@testable import Training

@Suite struct LoRAFATests {
  /// s·ĝ·A is the nearest to the gradient of the weight that there is in the rows of A: what is left
  /// of that has nothing along them.
  @Test(arguments: [1, 3, 4], [5, 300]) func theStepOfBIsThatOfLeastSquares(
    rank: Int, outputs: Int
  ) throws {
    let (inputs, scaling) = (21, 0.75)
    let a = (0..<rank * inputs).map { Float(($0 * 31) % 17) / 17 - 0.45 }
    let gradient = (0..<outputs * inputs).map { Double(($0 * 13) % 29) / 29 - 0.5 }
    func times(_ rows: [Double], _ row: Int, _ output: Int) -> Double {
      (0..<inputs).reduce(0) {
        $0 + rows[output * inputs + $1] * Double(a[row * inputs + $1])
      }
    }
    let adapter = LoRA(
      a: TrainableParameter("a", Rows(a, columns: inputs), isFrozen: true),
      b: TrainableParameter("b", Rows(rank, outputs)), scaling: Float(scaling))
    #expect(adapter.parameters.map(\.name) == ["b"] && adapter.a.gradient.count == 0)
    // g = s·G·Aᵀ, kept transposed.
    for row in 0..<rank {
      for output in 0..<outputs {
        adapter.b.gradient[row, output] = Float(scaling * times(gradient, row, output))
      }
    }
    try LoRAFA([adapter]).beforeUpdate(ThreadTeam(count: 2))
    var left = gradient
    for output in 0..<outputs {
      for row in 0..<rank {
        let step = scaling * Double(adapter.b.gradient[row, output])
        for input in 0..<inputs {
          left[output * inputs + input] -= step * Double(a[row * inputs + input])
        }
      }
    }
    for output in 0..<outputs {
      for row in 0..<rank {
        #expect(abs(times(left, row, output)) < 1e-5, "output \(output), row \(row)")
      }
    }
  }
}
