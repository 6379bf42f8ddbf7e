import Glibc

/// How many singular values of an update are kept.
package enum RankChoice: Equatable, Sendable {
  /// So many.
  case fixed(Int)
  /// As many as it takes for this share of the energy, Σσ²; kohya's `sv_fro` is its root.
  case energy(Double)
  /// As many as it takes for this share of Σσ: kohya's `sv_cumulative`.
  case sum(Double)
  /// Those above σ₀ / this: kohya's `sv_ratio`.
  case ratio(Double)
  /// The effective rank, rounded up: the exponential of the entropy of σ / Σσ (Roy, Vetterli 2007).
  case effective

  /// The rank for singular values in descending order: 1 at least, but 0 where all are 0.
  ///
  /// kohya's `resize_lora.py` keeps one more than it takes; this does not.
  package func rank(of values: [Double]) -> Int {
    let count = values.count { $0 > 0 }
    guard count > 0 else { return 0 }
    switch self {
    case .fixed(let rank): return min(rank, values.count)
    case .energy(let share): return Self.count(values.map { $0 * $0 }, share)
    case .sum(let share): return Self.count(values, share)
    case .ratio(let ratio): return max(1, values.count { $0 > values[0] / ratio })
    case .effective:
      // What f32 adds to σ that are 0 must not cost a rank.
      return min(count, max(1, Int((Self.effectiveRank(of: values) - 1e-3).rounded(.up))))
    }
  }

  /// The exponential of the entropy of σ / Σσ; 0 where all are 0.
  package static func effectiveRank(of values: [Double]) -> Double {
    let sum = values.reduce(0, +)
    guard sum > 0 else { return 0 }
    let entropy = values.reduce(0) { total, value in
      let share = value / sum
      return share > 0 ? total - share * log(share) : total
    }
    return exp(entropy)
  }

  /// How many parts it takes for a share of their sum.
  private static func count(_ parts: [Double], _ share: Double) -> Int {
    let whole = parts.reduce(0, +)
    var sum = 0.0
    for (place, part) in parts.enumerated() {
      sum += part
      // Rounding must not cost a rank.
      if sum >= share * whole * (1 - 1e-12) { return place + 1 }
    }
    return parts.count
  }
}
