import Testing

@testable import Adapters
@testable import Commands

@Suite struct CombinationPlanTests {
  private func module(_ path: String, rank: Int) -> Combination.PlannedModule {
    .init(
      path: path, weights: [1, nil], densities: [nil, nil], ranks: [rank, nil], rank: rank,
      isRankKnown: true, byteCount: 8 * rank)
  }

  @Test func modulesOfOneTreatmentAreOneGroup() {
    let groups = [module("a", rank: 2), module("b", rank: 3), module("c", rank: 2)].treatedAlike
    #expect(groups.map(\.first.path) == ["a", "b"])
    #expect(groups.map(\.paths) == [["a", "c"], ["b"]])
  }

  /// Comparing each module with all groups before it would take minutes.
  @Test(.timeLimit(.minutes(5))) func manyTreatmentsAreAGroupEach() {
    let count = 20_000
    let groups = (0..<2 * count).map { module("m\($0)", rank: $0 % count) }.treatedAlike
    #expect(groups.count == count)
    #expect(groups.allSatisfy { $0.paths.count == 2 })
  }
}
