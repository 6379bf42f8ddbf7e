import LinearAlgebra
import Testing

@testable import Models
@testable import Training

@Suite struct SparseFactorsTests {
  @Test func theShareGrowsAsTheFormulaSays() throws {
    let settings = SparseFactors.Settings(sparsity: 0.8, stepCount: 100)
    #expect(settings.first == 10 && settings.last == 50)
    #expect((1..<10).allSatisfy { settings.share(after: $0) == nil })
    #expect(settings.share(after: 10) == 0 && settings.share(after: 50) == 0.8)
    #expect(settings.share(after: 11) == nil && settings.share(after: 51) == nil)
    // Half of the way: 1 − (1/2)³.
    #expect(try abs(#require(settings.share(after: 30)) - 0.8 * 0.875) < 1e-12)
  }

  @Test(arguments: [1, 2, 3, 7]) func aShortRunGetsThereToo(stepCount: Int) {
    let settings = SparseFactors.Settings(sparsity: 0.5, stepCount: stepCount)
    #expect(settings.share(after: settings.last) == 0.5 && settings.last <= stepCount)
  }

  /// The smallest go, and what has gone stays away.
  @Test func theSmallestEntriesAreZero() {
    let a = TrainableParameter("a", Rows([5, -1, 3, 0.5, -4, 2, 2, 9], columns: 4))
    let b = TrainableParameter("b", Rows([1, 1, 1, 1, 1, 1], columns: 3))
    let method = SparseFactors(
      [LoRA(a: a, b: b, scaling: 1)], .init(sparsity: 0.5, stepCount: 2))
    let (optimizer, team) = (AdamW([a, b], .init()), ThreadTeam(count: 2))
    method.afterUpdate(step: 0, rate: 1, optimizer, team)
    #expect(a.values.values == [5, 0, 3, 0, -4, 0, 0, 9])
    #expect(b.values.values == [0, 0, 0, 1, 1, 1])
    for column in 0..<4 {
      a.values[0, column] = 100
      a.gradient[0, column] = 1
    }
    a.values[1, 1] = -3
    _ = method.completeGradients(step: 1, team)
    #expect(a.gradient.values == [1, 0, 1, 0, 0, 0, 0, 0])
    method.afterUpdate(step: 1, rate: 1, optimizer, team)
    #expect(a.values.values == [100, 0, 100, 0, -4, 0, 0, 9])
    #expect(a.values.values.allSatisfy { $0 != 0 || $0.sign == .plus })
  }
}
