import LinearAlgebra

/// What a method makes of `lora_bias`, whose change is w·s·b: what it makes of the updates, but that
/// nothing is dropped, and of TSV-M the mean, which it has for vectors.
enum BiasMethods {
  /// The bias of the combined update, whose scaling is 1; nil where no term has one.
  static func combine(
    _ terms: [Term], _ method: CombinationMethod, _ settings: CombinationSettings
  ) -> [Double]? {
    guard terms.contains(where: { $0.bias != nil }), let first = terms.first else { return nil }
    let none = [Double](repeating: 0, count: first.b.rows)
    let biases = terms.map { term in
      term.bias.map { $0.map { $0 * term.scaling } } ?? none
    }
    let weights = terms.map(\.weight)
    return switch method {
    case .ties, .tiesSVD, .dareTies, .dareTiesSVD, .knots:
      Election.mean(biases, weights: weights, by: settings.majority)
    case .tiesWeighted: Election.weighted(biases, weights: weights, isNormalized: true)
    case .della: Election.weighted(biases, weights: weights, isNormalized: false)
    case .slerp: weightedSum(biases, Slerp.coefficients(of: terms))
    case .tsv: weightedSum(biases, weights.map { $0 / Double(terms.count) })
    default: weightedSum(biases, weights)
    }
  }
}
