import LinearAlgebra
import Models

/// LoRA whose A and B become sparse while they are trained.
///
/// From a tenth of the steps to half of them the share of entries that are 0 grows to
/// `Settings.sparsity`, quickly at first (Zhu and Gupta 2017, equation 1). Of each factor the
/// smallest by magnitude are set to 0, and stay so: the others make up for them in the steps that
/// are left.
///
/// Memory: a number for each entry.
package struct SparseFactors: TrainingMethod {
  /// What it has to be told.
  package struct Settings: Equatable, Sendable {
    /// The share of entries that are 0 in the end.
    package let sparsity: Double
    /// The step, from 1, after which the first are set to 0, and that after which the last are.
    package let first, last: Int
    /// The steps from one time to the next.
    let interval: Int

    /// The settings of a run of so many steps.
    package init(sparsity: Double, stepCount: Int) {
      self.sparsity = sparsity
      first = max(1, stepCount / 10)
      last = max(first, stepCount / 2)
      interval = max(1, (last - first) / 20)
    }

    /// The share that is 0 after a step, from 1; nil where it stays what it is.
    package func share(after step: Int) -> Double? {
      guard (first...last).contains(step) else { return nil }
      if step == last { return sparsity }
      guard (step - first).isMultiple(of: interval) else { return nil }
      let rest = 1 - Double(step - first) / Double(last - first)
      return sparsity * (1 - rest * rest * rest)
    }
  }

  private let settings: Settings
  private let adapters: [LoRA]
  /// The factors, and 1 for each entry that is left, of a factor's shape.
  private let factors: [(parameter: TrainableParameter, kept: Rows)]

  init(_ adapters: [LoRA], _ settings: Settings) {
    self.settings = settings
    self.adapters = adapters
    factors = adapters.flatMap { [$0.a, $0.b] }.map { parameter in
      let kept = Rows(parameter.values.count, parameter.values.columns)
      for row in 0..<kept.count {
        for column in 0..<kept.columns { kept[row, column] = 1 }
      }
      return (parameter, kept)
    }
  }

  func completeGradients(step: Int, _ team: ThreadTeam) -> Double {
    adapters.completeGradients(team)
    guard step >= settings.first else { return 0 }
    // What is 0 has no part in the norm by which the others are clipped.
    team.forEach(factors.count) { _, place in
      factors[place].parameter.gradient.clear(whereZero: factors[place].kept)
    }
    return 0
  }

  func afterUpdate(step: Int, rate: Double, _ optimizer: AdamW, _ team: ThreadTeam) {
    let share = settings.share(after: step + 1)
    guard share != nil || step + 1 > settings.first else { return }
    team.forEach(factors.count) { _, place in
      let (parameter, kept) = factors[place]
      if let share { Self.choose(share, of: parameter.values, kept) }
      parameter.values.clear(whereZero: kept)
    }
  }

  /// Marks the smallest entries, those that are marked already with them; of equal ones the first.
  private static func choose(_ share: Double, of values: Rows, _ kept: Rows) {
    let count = Int(share * Double(values.count * values.columns))
    let magnitudes = zip(values.values, kept.values).map { $1 == 0 ? -1 : abs($0) }
    guard count > 0 else { return }
    let limit = magnitudes.sorted()[count - 1]
    var equal = count - magnitudes.count { $0 < limit }
    for (place, magnitude) in magnitudes.enumerated() where magnitude <= limit {
      if magnitude == limit {
        guard equal > 0 else { continue }
        equal -= 1
      }
      kept[place / kept.columns, place % kept.columns] = 0
    }
  }

  var state: [(name: String, values: Rows)] {
    factors.map { ($0.parameter.name + ".kept", $0.kept) }
  }
}

extension Rows {
  /// Zeros, without a sign, where other rows have them.
  fileprivate func clear(whereZero other: Rows) {
    withSpan { values in
      other.withSpan { kept in
        for place in values.indices where kept[place] == 0 { values[place] = 0 }
      }
    }
  }
}
