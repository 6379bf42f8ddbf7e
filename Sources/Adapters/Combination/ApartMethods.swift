import LinearAlgebra

// PEFT's methods on A and B apart: √|w·s| on both, the sign on A
// (`_generalized_task_arithmetic_weighted_adapter`). Their products have cross terms B_i·A_j, so
// that they are not what the name says; they are here under PEFT's names, with PEFT's numbers.
enum ApartMethods {
  /// Combines updates of one rank.
  static func combine(
    _ terms: [Term], _ method: CombinationMethod, _ settings: CombinationSettings,
    _ numbers: (_ place: Int) -> RandomNumbers
  ) -> Pair {
    let roots = terms.map { $0.factor.magnitude.squareRoot() }
    let signed = zip(terms, roots).map { $0.factor < 0 ? -$1 : $1 }
    let densities = terms.map(\.density)
    let a = combine(terms.map(\.a), signed, densities, method, settings) { numbers(2 * $0) }
    let b = combine(terms.map(\.b), roots, densities, method, settings) { numbers(2 * $0 + 1) }
    return Pair(a: a, b: b)
  }

  private static func combine(
    _ matrices: [Matrix<Double>], _ weights: [Double], _ densities: [Double],
    _ method: CombinationMethod, _ settings: CombinationSettings,
    _ numbers: (Int) -> RandomNumbers
  ) -> Matrix<Double> {
    var parts = matrices.map(\.elements)
    switch method {
    case .ties, .magnitudePrune:
      parts = zip(parts, densities).map { $0.keepingLargest(density: $1) }
    case .dareLinear, .dareTies:
      parts = parts.enumerated().map { place, part in
        part.keepingRandom(density: densities[place], numbers(place))
      }
    default: break
    }
    let isTies = method == .ties || method == .dareTies
    return Matrix(
      rows: matrices[0].rows, columns: matrices[0].columns,
      elements: isTies
        ? Election.mean(parts, weights: weights, by: settings.majority)
        : weightedSum(parts, weights))
  }
}

/// The sum of lists of one length, each times a weight, in f64.
func weightedSum<Scalar: BinaryFloatingPoint>(_ lists: [[Scalar]], _ weights: [Double]) -> [Scalar]
{
  guard let first = lists.first else { return [] }
  return first.indices.map { place in
    Scalar(zip(lists, weights).reduce(0) { $0 + Double($1.0[place]) * $1.1 })
  }
}
