/// TIES (Yadav and others 2023): of entries with unlike signs only those of the elected sign count.
package enum Election {
  /// How signs are elected, of the entries as they are: PEFT's `majority_sign_method`.
  package enum Rule: String, CaseIterable, Sendable {
    /// The sign of the sum; that of 0 is positive.
    case total
    /// The sign that more entries have; a tie is positive.
    case frequency
  }

  /// PEFT's mean of the entries that have the elected sign, each times its weight, over their number.
  ///
  /// An entry of 0 has no sign. Source: `ties`, `disjoint_merge` of `utils/merge_utils.py`.
  static func mean<Scalar: BinaryFloatingPoint>(
    _ updates: [[Scalar]], weights: [Double], by rule: Rule
  ) -> [Scalar] {
    guard let first = updates.first else { return [] }
    return first.indices.map { place in
      var sum = 0.0
      for update in updates {
        let value = Double(update[place])
        sum += rule == .total ? value : value.sign3
      }
      let sign = sum >= 0 ? 1.0 : -1.0
      var (kept, count) = (0.0, 0)
      for (update, weight) in zip(updates, weights) {
        let value = Double(update[place])
        guard value.sign3 == sign else { continue }
        kept += weight * value
        count += 1
      }
      return Scalar(kept / Double(max(count, 1)))
    }
  }

  /// mergekit's: signs are elected of the entries times their weights; where `isNormalized` what is
  /// kept is divided by the sum of the weights that are.
  static func weighted<Scalar: BinaryFloatingPoint>(
    _ updates: [[Scalar]], weights: [Double], isNormalized: Bool
  ) -> [Scalar] {
    guard let first = updates.first else { return [] }
    return first.indices.map { place in
      let values = zip(updates, weights).map { Double($0[place]) * $1 }
      let sign = values.reduce(0, +) >= 0 ? 1.0 : -1.0
      var (kept, total) = (0.0, 0.0)
      for (value, weight) in zip(values, weights) where value.sign3 == sign {
        kept += value
        total += weight
      }
      return Scalar(isNormalized && total.magnitude >= 1e-8 ? kept / total : kept)
    }
  }
}

extension Double {
  /// −1, 0 or 1.
  fileprivate var sign3: Double { self > 0 ? 1 : self < 0 ? -1 : 0 }
}
