import Files
import Fixtures
import Testing

@testable import Adapters

@Suite struct RankBudgetTests {
  private typealias Spectrum = RankBudget.Spectrum

  /// What ranks keep and cost.
  private func total(_ ranks: [Int], _ modules: [Spectrum]) -> (energy: Double, cost: Int) {
    zip(ranks, modules).reduce((0, 0)) { sum, next in
      (
        sum.0 + next.1.energies.prefix(next.0).reduce(0, +), sum.1 + next.0 * next.1.cost
      )
    }
  }

  /// The most energy of all ranks that fit, each tried.
  private func best(_ modules: ArraySlice<Spectrum>, _ budget: Int) -> Double {
    guard let module = modules.first else { return 0 }
    var best = -Double.infinity
    for rank in 1...max(1, module.energies.count) where rank * module.cost <= budget {
      let own = module.energies.prefix(rank).reduce(0, +)
      best = max(best, own + self.best(modules.dropFirst(), budget - rank * module.cost))
    }
    return best
  }

  @Test(arguments: 0..<300) func noOtherRanksKeepMore(seed: Int) throws {
    var numbers = SplitMix64(seed: seed)
    let modules = (0..<Int.random(in: 1...4, using: &numbers)).map { _ in
      let count = Int.random(in: 0...6, using: &numbers)
      // Small whole numbers, so that there are ties.
      let energies = (0..<count).map { _ in Double(Int.random(in: 0...9, using: &numbers)) }
      return Spectrum(
        energies: energies.sorted(by: >), fullRank: count,
        cost: Int.random(in: 1...7, using: &numbers) * (seed % 3 == 0 ? 6 : 1))
    }
    let least = modules.reduce(0) { $0 + $1.cost }
    let budget = least + Int.random(in: 0...3 * least, using: &numbers)
    let ranks = try RankBudget.parameters(budget).ranks(of: modules)
    let (energy, cost) = total(ranks, modules)
    #expect(cost <= budget)
    #expect(energy == best(modules[...], budget))
    #expect(zip(ranks, modules).allSatisfy { (1...max(1, $1.energies.count)).contains($0) })
  }

  /// The best ratio first would take the 5 and leave 2 of the budget idle.
  @Test func theBestRatioFirstIsNotTheBest() throws {
    let modules = [
      Spectrum(energies: [9, 5], fullRank: 2, cost: 3),
      Spectrum(energies: [9, 8], fullRank: 2, cost: 5),
    ]
    #expect(try RankBudget.parameters(13).ranks(of: modules) == [1, 2])
    #expect(try RankBudget.parameters(12).ranks(of: modules) == [2, 1])
    #expect(try RankBudget.parameters(16).ranks(of: modules) == [2, 2])
    #expect(try RankBudget.meanRank(1.5).ranks(of: modules) == [2, 1])
  }

  @Test func whatIsNotKnownCountsAsTheLastThatIs() throws {
    let modules = [
      Spectrum(energies: [9, 5], fullRank: 8, cost: 1),
      Spectrum(energies: [9, 4, 4, 4], fullRank: 4, cost: 1),
    ]
    #expect(try RankBudget.parameters(6).ranks(of: modules) == [5, 1])
  }

  @Test func rankOneOfEachIsTheLeast() throws {
    let modules = [Spectrum(energies: [1], fullRank: 1, cost: 7)]
    #expect(
      throws: PeftoolError.self,
      performing: { try RankBudget.parameters(6).ranks(of: modules) })
    #expect(try RankBudget.parameters(7).ranks(of: modules) == [1])
    #expect(try RankBudget.parameters(.max).ranks(of: modules) == [1])
  }

  /// As many modules as a model of 7 billion weights has, in their shapes.
  @Test func aLargeModelTakesNoTime() throws {
    var numbers = SplitMix64(seed: 1)
    let modules = (0..<224).map { place in
      let scale = Double.random(in: 0.1...3, using: &numbers)
      let energies = (0..<64).map { _ in scale * Double.random(in: 0...1, using: &numbers) }
      return Spectrum(
        energies: energies.sorted(by: >), fullRank: 64,
        cost: [8192, 8192, 5120, 15_104, 18_432, 15_105, 8193][place % 7])
    }
    let budget = RankBudget.meanRank(16)
    let ranks = try budget.ranks(of: modules)
    let rest = budget.parameterCount(costs: modules.map(\.cost)) - total(ranks, modules).cost
    #expect((0..<5120).contains(rest))
  }
}
