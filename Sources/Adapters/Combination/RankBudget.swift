package import Files

/// How many parameters the pairs of all modules may have together.
///
/// A module's k-th rank adds σ_k² to the energy that is kept, and costs out + in parameters. Each
/// module gets rank 1, as PEFT has no update of rank 0; the others are chosen so that Σσ² of what is
/// kept is the largest that the budget allows, to a part in 10¹² of the energy. As a module's σ
/// descend and its ranks cost the same, that is the 0-1 knapsack of all (σ², out + in), solved
/// exactly: taking the best ratios first (EVA, Paischer and others 2024) is only the bound.
package enum RankBudget: Equatable, Sendable {
  /// So many parameters of A and B.
  case parameters(Int)
  /// As many as this rank takes in every module.
  case meanRank(Double)

  /// The squares that a module's ranks may keep.
  package struct Spectrum: Equatable, Sendable {
    /// σ², in descending order, as far as they are known.
    package let energies: [Double]
    /// The rank that the module may have; what is not known of it is taken for the last that is.
    package let fullRank: Int
    /// out + in.
    package let cost: Int

    /// What is known of a module.
    package init(energies: [Double], fullRank: Int, cost: Int) {
      precondition(energies.count <= fullRank && cost > 0, "no more energies than ranks")
      self.energies = energies
      self.fullRank = fullRank
      self.cost = cost
    }
  }

  /// The parameters that modules of these costs may have together.
  package func parameterCount(costs: [Int]) -> Int {
    switch self {
    case .parameters(let count): return count
    case .meanRank(let rank):
      let count = rank * costs.reduce(0) { $0 + Double($1) }
      return count < 0x1p62 ? Int(count) : Int.max
    }
  }

  /// The mean rank that the budget has for modules of these costs.
  package func meanRank(costs: [Int]) -> Double {
    switch self {
    case .parameters(let count): Double(count) / Double(max(1, costs.reduce(0, +)))
    case .meanRank(let rank): rank
    }
  }

  /// The rank of each module, 1 at least.
  ///
  /// Where a rank is beyond what is known of its module the choice is only a bound: with more known
  /// it may be another. Time and memory: sorting, and the partial sums near the bound.
  /// - Throws: `different` where rank 1 of each is more than the budget, `unsupported` where too many
  ///   partial sums are as good as each other.
  package func ranks(of modules: [Spectrum]) throws(PeftoolError) -> [Int] {
    let budget = parameterCount(costs: modules.map(\.cost))
    let least = modules.reduce(0) { $0 + $1.cost }
    guard least <= budget else {
      throw PeftoolError(
        .different,
        "rank 1 in each of \(modules.count) modules takes \(least) parameters, the budget is "
          + "\(budget)")
    }
    var ranks = [Int](repeating: 1, count: modules.count)
    for place in try Knapsack(modules, capacity: budget - least).places() { ranks[place] += 1 }
    return ranks
  }
}

/// Ranks beyond the first as things of a value and a cost, of which the best fill a capacity.
///
/// Things of one cost are taken in the order of their values; so a solution is a number of things
/// for each cost. With λ the ratio of value to cost at which the capacity is full, its value is the
/// bound of the broken solution, less Σ|value − λ·cost| of the things on the wrong side, less λ times
/// what is left of the capacity (Dantzig 1957; the core of Balas and Zemel 1980). Costs are taken one
/// by one, and of the partial sums those are kept that cost less than all better ones and whose
/// losses leave them a chance (Nemhauser and Ullmann 1969).
private struct Knapsack {
  private struct Thing {
    let value: Double
    let cost: Int
    let place: Int

    /// The better ratio first; one order for all costs and each of them.
    static func precedes(_ first: Thing, _ second: Thing) -> Bool {
      let (left, right) = (first.value / Double(first.cost), second.value / Double(second.cost))
      return (-left, first.cost, first.place) < (-right, second.cost, second.place)
    }
  }

  /// Some things of each cost so far.
  private struct Sum {
    /// The cost beyond that of the broken solution.
    let cost: Int
    /// What the bound has lost.
    let loss: Double
    /// The sum before, and how many things of the last cost it has.
    let before: Int
    let count: Int
  }

  private static let maximumSumCount = 1 << 22
  /// What of all energy is no matter.
  private static let tolerance = 1e-12

  /// The things by cost, the best first, and how many of each the broken solution has.
  private let kinds: [(cost: Int, things: [Thing], count: Int)]
  private let ratio: Double
  /// What the broken solution leaves of the capacity.
  private let rest: Int
  private let insignificant: Double

  init(_ modules: [RankBudget.Spectrum], capacity: Int) {
    var things: [Thing] = []
    for (place, module) in modules.enumerated() where module.cost <= capacity {
      let mayFit = min(module.fullRank - 1, capacity / module.cost)
      for rank in 0..<max(0, mayFit) {
        let known = rank + 1 < module.energies.count
        let value = known ? module.energies[rank + 1] : module.energies.last ?? 0
        if value > 0 { things.append(Thing(value: value, cost: module.cost, place: place)) }
      }
    }
    things.sort(by: Thing.precedes)
    let divisor = things.reduce(0) { Self.commonDivisor($0, $1.cost) }
    var rest = divisor > 0 ? capacity / divisor * divisor : 0
    let broken = things.firstIndex { thing in
      guard thing.cost <= rest else { return true }
      rest -= thing.cost
      return false
    }
    let costs = Set(things.map(\.cost)).sorted()
    var own: [Int: [Thing]] = [:]
    for thing in things { own[thing.cost, default: []].append(thing) }
    var counts: [Int: Int] = [:]
    for thing in things[..<(broken ?? things.count)] { counts[thing.cost, default: 0] += 1 }
    kinds = costs.map { ($0, own[$0] ?? [], counts[$0] ?? 0) }
    ratio = broken.map { things[$0].value / Double(things[$0].cost) } ?? 0
    self.rest = rest
    insignificant = Self.tolerance * things.reduce(0) { $0 + $1.value }
  }

  private static func commonDivisor(_ first: Int, _ second: Int) -> Int {
    var (first, second) = (first, second)
    while second > 0 { (first, second) = (second, first % second) }
    return first
  }

  /// For each thing of the best filling its module.
  func places() throws(PeftoolError) -> [Int] {
    var best = filledLoss
    var layers: [[Sum]] = [[Sum(cost: 0, loss: 0, before: 0, count: 0)]]
    for kind in kinds {
      var next: [Sum] = []
      for (place, sum) in (layers.last ?? []).enumerated() {
        try extend(sum, at: place, by: kind, below: best, into: &next)
      }
      layers.append(Self.undominated(next, ratio))
      for sum in layers.last ?? [] where sum.cost <= rest {
        best = min(best, loss(of: sum))
      }
    }
    // Of sums with one loss the cheapest.
    var chosen = (layers.last ?? []).enumerated().filter { $0.element.cost <= rest }
      .min { (loss(of: $0.element), $0.element.cost) < (loss(of: $1.element), $1.element.cost) }?
      .offset
    var places: [Int] = []
    for (kind, layer) in zip(kinds, layers.dropFirst()).reversed() {
      guard let sum = chosen.map({ layer[$0] }) else { break }
      places += kind.things[..<sum.count].map(\.place)
      chosen = sum.before
    }
    return places
  }

  /// What the bound loses by a sum and nothing more.
  private func loss(of sum: Sum) -> Double { sum.loss + ratio * Double(rest - sum.cost) }

  /// The loss of a filling that is near: the broken one, with what else fits.
  private var filledLoss: Double {
    var (rest, loss) = (rest, 0.0)
    for kind in kinds {
      for thing in kind.things[kind.count...] where thing.cost <= rest {
        rest -= thing.cost
        loss += ratio * Double(thing.cost) - thing.value
      }
    }
    return loss + ratio * Double(rest)
  }

  /// Adds a sum with more and with fewer things of a cost, as long as what it loses is not too much.
  private func extend(
    _ sum: Sum, at place: Int, by kind: (cost: Int, things: [Thing], count: Int),
    below best: Double, into sums: inout [Sum]
  ) throws(PeftoolError) {
    for step in [-1, 1] {
      var (loss, count) = (sum.loss, kind.count)
      if step > 0 {
        // The broken solution's own number comes with the fewer ones.
        guard count < kind.things.count else { continue }
        loss += ratio * Double(kind.cost) - kind.things[count].value
        count += 1
      }
      while loss <= best + insignificant {
        sums.append(
          Sum(
            cost: sum.cost + (count - kind.count) * kind.cost, loss: loss, before: place,
            count: count))
        guard sums.count <= Self.maximumSumCount else {
          throw PeftoolError(
            .unsupported,
            "more than \(Self.maximumSumCount) choices of ranks keep almost the same energy, "
              + "expected fewer: another budget")
        }
        if step < 0 {
          guard count > 0 else { break }
          count -= 1
          loss += kind.things[count].value - ratio * Double(kind.cost)
        } else {
          guard count < kind.things.count else { break }
          loss += ratio * Double(kind.cost) - kind.things[count].value
          count += 1
        }
      }
    }
  }

  /// The sums that have more value than all that cost no more.
  private static func undominated(_ sums: [Sum], _ ratio: Double) -> [Sum] {
    var kept: [Sum] = []
    var least = Double.infinity
    for sum in sums.sorted(by: { ($0.cost, $0.loss, $0.count) < ($1.cost, $1.loss, $1.count) }) {
      let missing = sum.loss - ratio * Double(sum.cost)
      guard missing < least else { continue }
      least = missing
      kept.append(sum)
    }
    return kept
  }
}
