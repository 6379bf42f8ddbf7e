import CKernels
import LinearAlgebra
import Testing

@testable import Models
@testable import Training

@Suite struct AdaLoRATests {
  private static func settings() -> AdaLoRA.Settings {
    var settings = AdaLoRA.Settings()
    (settings.initialRank, settings.targetRank) = (6, 2)
    (settings.initialSteps, settings.finalSteps, settings.stepCount) = (2, 3, 12)
    return settings
  }

  /// What PEFT's `RankAllocator.budget_schedule` gives for two layers.
  @Test func theBudgetIsThatOfPEFT() {
    let settings = Self.settings()
    let budgets = (0..<12).map { settings.budget(layers: 2, after: $0) }
    #expect(budgets.map(\.count) == [12, 12, 12, 9, 6, 5, 4, 4, 4, 4, 4, 4])
    #expect(budgets.map(\.isPruning) == [false, false, false] + [Bool](repeating: true, count: 9))
  }

  /// However far apart prunings are, the last one is made.
  @Test func theLastStepOfAllPrunes() {
    var settings = Self.settings()
    settings.interval = 5
    let pruning = (0..<12).filter { settings.budget(layers: 2, after: $0).isPruning }
    #expect(pruning == [5, 9, 10, 11])
    #expect(settings.budget(layers: 2, after: 9).count == 4)
  }

  /// weight·2·(X·Xᵀ − I)·X / ‖X·Xᵀ − I‖ against differences of the norm, in f64.
  @Test func theTermOfOrthogonalityHasItsGradient() {
    let (rank, columns) = (3, 19)
    let x = (0..<rank * columns).map { Double(($0 * 37) % 23) / 23 - 0.4 }
    func norm(_ x: [Double]) -> Double {
      var sum = 0.0
      for row in 0..<rank {
        for other in 0..<rank {
          var product = row == other ? -1.0 : 0
          for column in 0..<columns {
            product += x[row * columns + column] * x[other * columns + column]
          }
          sum += product * product
        }
      }
      return sum.squareRoot()
    }
    let parameter = TrainableParameter("x", Rows(x.map { Float($0) }, columns: columns))
    parameter.gradient.copy(from: [Float](repeating: 1, count: x.count))
    #expect(abs(parameter.addOrthogonality(0.25) - norm(x)) < 1e-5 * norm(x))
    for place in x.indices {
      var (above, below) = (x, x)
      above[place] += 1e-5
      below[place] -= 1e-5
      let expected = 1 + 0.25 * (norm(above) - norm(below)) / 2e-5
      #expect(abs(Double(parameter.gradient.values[place]) - expected) < 1e-5)
    }
  }

  @Test func orthonormalRowsGetNothing() {
    let parameter = TrainableParameter("x", Rows([1, 0, 0, 0, 1, 0], columns: 3))
    #expect(parameter.addOrthogonality(1) == 0)
    #expect(parameter.gradient.values == [0, 0, 0, 0, 0, 0])
  }

  /// E's gradient is the product of that of E∘A with A, and A's is that times E.
  @Test func gradientsOfTheProductBecomeThoseOfItsFactors() {
    let a = TrainableParameter("a", Rows([1, 2, 3, 4, 5, 6], columns: 3))
    let e = TrainableParameter("e", Rows([2, -1], columns: 1))
    let adapter = LoRA(
      a: a, b: TrainableParameter("b", Rows(2, 4)), e: e, scaling: 0.5)
    #expect(adapter.appliedA.values == [2, 4, 6, -4, -5, -6])
    #expect(adapter.scaledA.values == [1, 2, 3, -2, -2.5, -3])
    a.gradient.copy(from: [1, 0, -1, 2, 2, 0.5])
    adapter.completeGradients()
    #expect(e.gradient.values == [-2, 21])
    #expect(a.gradient.values == [2, 0, -2, -2, -2, -0.5])
  }

  @Test(arguments: [0, 1, 15, 16, 35]) func importanceIsTheFormula(count: Int) {
    var step = pef_importance(beta1: 0.85, one_less_beta1: 0.15, beta2: 0.75, one_less_beta2: 0.25)
    var average = (0..<count).map { Float($0 % 5) * 0.3 }
    var distance = (0..<count).map { Float($0 % 3) * 0.2 }
    let p = (0..<count).map { Float($0 % 7) - 3 }
    let g = (0..<count).map { Float($0 % 4) * 0.7 - 1 }
    let expected = (0..<count).map { place -> (Float, Float) in
      let importance = (p[place] * g[place]).magnitude
      let mean = 0.85 * average[place] + 0.15 * importance
      return (mean, 0.75 * distance[place] + 0.25 * (importance - mean).magnitude)
    }
    pef_importance_f32(&step, &average, &distance, p, g, count)
    #expect(average == expected.map(\.0) && distance == expected.map(\.1))
  }
}
