package import Adapters
import Files
import LinearAlgebra
import Models

/// LoRA whose layers begin with one rank and are cut, half of the way, to those that they need.
///
/// After the step `Settings.step` each layer's B·A is brought to the form of singular values without
/// a change of what it computes: A becomes c·Vᵀ and B becomes U·Σ/c, with the c that keeps ‖A‖, so
/// that training goes on as it went. Of the values those stay that a criterion wants, the others are
/// 0 on both sides and get no gradient any more: of all matrices of that rank B·A is then the
/// nearest (Eckart, Young 1936). The optimizer's moments are turned alike. What is saved is a plain
/// LoRA adapter with `rank_pattern`, each layer's scale as it was in `alpha_pattern`.
///
/// Memory: what is remembered of its layers; and for a moment one layer's factors in f64, twice.
package struct RankSearch: TrainingMethod {
  /// What ranks are found by.
  package enum Criterion: Equatable, Sendable {
    /// Each layer's by its own singular values.
    case each(RankChoice)
    /// The best of all layers together.
    case all(RankBudget)
  }

  /// What the search has to be told.
  package struct Settings: Equatable, Sendable {
    /// The rank with which layers begin.
    package let initialRank: Int
    /// What ranks are found by.
    package let criterion: Criterion
    /// The number of the step, from 1, after which they are found.
    package let step: Int

    /// A search after half of a run's steps.
    package init(initialRank: Int, criterion: Criterion, stepCount: Int) {
      self.initialRank = initialRank
      self.criterion = criterion
      step = max(1, stepCount / 2)
    }
  }

  /// What a layer has got.
  package struct Finding: Equatable, Sendable {
    /// The layer's path.
    package let module: String
    /// Its rank.
    package let rank: Int
    /// The share of Σσ² that this has kept.
    package let energy: Double
    /// The effective rank that B·A had.
    package let effectiveRank: Double
    /// ‖s·B·A‖ before the cut.
    package let norm: Double
  }

  private let settings: Settings
  private let layers: [(module: String, adapter: LoRA)]
  /// Of each layer in + out, the parameters of a rank.
  private let costs: [Int]
  /// What is remembered of each layer: the rank, the energy kept, the effective rank and the norm.
  static let factCount = 4
  /// The same, with a rank of 0 before.
  private let found: Rows

  /// - Throws: `different` where a budget is less than rank 1 takes, or no less than all.
  init(
    _ layers: [(module: String, adapter: LoRA)], _ settings: Settings
  ) throws(PeftoolError) {
    self.layers = layers
    self.settings = settings
    costs = layers.map { $0.adapter.a.values.columns + $0.adapter.b.values.columns }
    found = Rows(layers.count, Self.factCount)
    _ = try ranks([[Double]](repeating: [], count: layers.count))
    guard case .all(let budget) = settings.criterion else { return }
    let (most, whole) = (
      budget.parameterCount(costs: costs), settings.initialRank * costs.reduce(0, +)
    )
    guard most >= whole else { return }
    throw PeftoolError(
      .different,
      "the budget of \(most) parameters leaves nothing to cut of \(whole), which rank "
        + "\(settings.initialRank) takes in each of \(layers.count) modules: a larger --max-rank")
  }

  /// The ranks for each layer's energies.
  private func ranks(_ energies: [[Double]]) throws(PeftoolError) -> [Int] {
    switch settings.criterion {
    case .each(let choice):
      return energies.map { max(1, choice.rank(of: $0.map { $0.squareRoot() })) }
    case .all(let budget):
      return try budget.ranks(
        of: layers.indices.map { place in
          RankBudget.Spectrum(
            energies: energies[place], fullRank: layers[place].adapter.rank, cost: costs[place])
        })
    }
  }

  func afterUpdate(
    step: Int, rate: Double, _ optimizer: AdamW, _ team: ThreadTeam
  ) throws(PeftoolError) {
    guard step + 1 == settings.step else { return }
    var energies: [[Double]] = []
    // A layer's form is made twice, so that not all are there at once.
    for place in layers.indices { energies.append(try form(place).values.map { $0 * $0 }) }
    let ranks = try ranks(energies)
    for place in layers.indices {
      let form = try form(place)
      form.take(ranks[place], optimizer)
      let (all, kept) = (
        energies[place].reduce(0, +), energies[place].prefix(ranks[place]).reduce(0, +)
      )
      for (column, value) in [
        Double(ranks[place]), all > 0 ? kept / all : 1,
        RankChoice.effectiveRank(of: form.values), all.squareRoot(),
      ].enumerated() {
        found[place, column] = Float(value)
      }
    }
  }

  /// A layer's update in its singular form.
  ///
  /// - Throws: as `SVD`.
  private func form(_ place: Int) throws(PeftoolError) -> SingularForm {
    do throws(PeftoolError) {
      return try SingularForm(of: layers[place].adapter)
    } catch {
      throw error.at(tensor: layers[place].module)
    }
  }

  func completeGradients(step: Int, _ team: ThreadTeam) -> Double {
    layers.map(\.adapter).completeGradients(team)
    return 0
  }

  /// What each layer has got; empty before ranks are found.
  package var findings: [Finding] {
    layers.enumerated().compactMap { place, layer in
      guard found[place, 0] > 0 else { return nil }
      return Finding(
        module: layer.module, rank: layer.adapter.keptRanks.count, energy: Double(found[place, 1]),
        effectiveRank: Double(found[place, 2]), norm: Double(found[place, 3]))
    }
  }

  var state: [(name: String, values: Rows)] { [("rank_search", found)] }
}

/// An adapter's B·A as U·Σ·Vᵀ, and how its factors get there.
private struct SingularForm {
  /// The singular values of s·B·A, in descending order.
  let values: [Double]
  private let adapter: LoRA
  /// The factors in this form: c·Vᵀ, and Σ·Uᵀ/c.
  private let a, b: Matrix<Double>
  /// By what the gradients of A's and B's rows are multiplied when the rows are turned.
  private let turns: (a: Matrix<Double>, b: Matrix<Double>)

  /// - Throws: as `SVD`.
  init(of adapter: LoRA) throws(PeftoolError) {
    self.adapter = adapter
    let old = Matrix<Double>(Matrix(adapter.a.values))
    let svd = try LowRankSVD.of(
      Matrix(adapter.b.values).transposed(), Matrix(adapter.a.values))
    values = svd.singularValues.map { $0 * abs(Double(adapter.scaling)) }
    let length = (old.elements.reduce(0) { $0 + $1 * $1 } / Double(adapter.rank)).squareRoot()
    a = svd.vt.scaled(by: length)
    b = svd.u.transposed().scaled(rows: svd.singularValues.map { $0 / length })
    // A' = T·A and B' = T⁻ᵀ·B with T⁻ᵀ = Vᵀ·Aᵀ/c: as B goes so does A's gradient, and B's as A.
    let turn = product(svd.vt, old, transposing: .right).scaled(by: 1 / length)
    let parts = try SVD(turn)
    let least = (parts.singularValues.first ?? 0) * Double(adapter.rank) * Double.ulpOfOne
    let other = product(
      parts.u,
      parts.vt.scaled(rows: parts.singularValues.map { $0 > least ? 1 / $0 : 0 }))
    turns = (turn, other)
  }

  /// Gives the adapter its first ranks, and turns the optimizer's moments.
  func take(_ rank: Int, _ optimizer: AdamW) {
    for (parameter, values, turn) in [(adapter.a, a, turns.a), (adapter.b, b, turns.b)] {
      optimizer.turnMoments(of: parameter, by: turn, rank: rank)
      parameter.values.clear()
      parameter.values.rows(0..<rank).copy(
        from: Matrix<Float>(values.firstRows(rank)).elements)
    }
  }
}
