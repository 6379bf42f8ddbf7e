import LinearAlgebra
import Testing

@testable import Adapters

@Suite struct BalancedFactorsTests {
  /// A row of A is up to a thousand times as long as the column of B that belongs to it.
  private let pair = Pair(
    a: random(4, 7, seed: 1).scaled(rows: [1000, 1, 0.1, 5]), b: random(9, 4, seed: 2))

  @Test func balanceKeepsTheProductAndMakesLengthsEqual() {
    let balanced = pair.balanced()
    #expect(distance(balanced.update, pair.update) < 1e-11)
    for rank in 0..<4 {
      let row = balanced.a.elements[rank * 7..<(rank + 1) * 7].reduce(0) { $0 + $1 * $1 }
      let column = balanced.b.columns(rank..<rank + 1).elements.reduce(0) { $0 + $1 * $1 }
      #expect(abs(row / column - 1) < 1e-12)
    }
  }

  @Test func aRankThatIsZeroOnOneSideBecomesZeroOnBoth() {
    let half = Pair(a: pair.a, b: pair.b.scaled(columns: [1, 0, 1, 1])).balanced()
    #expect(half.a.elements[7..<14].allSatisfy { $0 == 0 })
    let rest = half.withoutEmptyRanks()
    #expect(rest.rank == 3)
    #expect(distance(rest.update, half.update) == 0)
  }

  @Test func theLargestOfBothFactorsAreKept() {
    let small = Pair(
      a: Matrix(rows: 1, columns: 3, elements: [3, -1, 2]),
      b: Matrix(rows: 3, columns: 1, elements: [2, 0.5, -4]))
    let kept = small.keepingLargest(density: 0.5)
    #expect(kept.a.elements == [3, 0, 2])
    #expect(kept.b.elements == [0, 0, -4])
    #expect(kept.filledCount == 3)
  }

  @Test func anUpdateOfNothingHasOneRank() {
    let nothing = pair.keepingLargest(density: 0).withoutEmptyRanks()
    #expect(nothing.rank == 1)
    #expect(nothing.update.elements.allSatisfy { $0 == 0 })
    #expect(nothing.a.columns == 7 && nothing.b.rows == 9)
  }

  @Test func energiesAreThoseOfTheProducts() {
    let pruned = pair.balanced().keepingLargest(density: 0.6)
    let energy = PrunedEnergy(of: pair, pruned: pruned).adding(bias: [3, 4])
    let square = { (m: Matrix<Double>) in m.elements.reduce(0) { $0 + $1 * $1 } }
    var difference = pair.update
    for place in difference.elements.indices {
      difference.elements[place] -= pruned.update.elements[place]
    }
    #expect(abs(energy.before / (square(pair.update) + 25) - 1) < 1e-12)
    #expect(abs(energy.after / (square(pruned.update) + 25) - 1) < 1e-12)
    #expect(abs(energy.lost - square(difference)) < 1e-14 * energy.before)
  }
}

@Suite struct ModuleResultTests {
  private func result(before: Double, lost: Double) -> ModuleResult {
    ModuleResult(
      path: "m", rankBefore: 2, rank: 1, energyBefore: before, energy: before - lost,
      lostEnergy: lost, entries: nil)
  }

  @Test func keptEnergyIsThatOfAllTogether() {
    let results = [result(before: 8, lost: 2), result(before: 2, lost: 2)]
    #expect(results.map(\.keptEnergy) == [0.75, 0])
    #expect(ModuleResult.keptEnergy(of: results) == 0.6)
    #expect(result(before: 0, lost: 0).keptEnergy == nil)
    #expect(result(before: 1, lost: 3).keptEnergy == -2)
  }
}
