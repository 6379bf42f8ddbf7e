import LinearAlgebra

/// Methods on whole updates: one module's are in memory, each as (out, in) numbers in f32.
enum DenseMethods {
  /// The combined update, (out, in).
  static func combine(
    _ terms: [Term], _ method: CombinationMethod, _ settings: CombinationSettings,
    _ numbers: (_ place: Int) -> RandomNumbers
  ) -> Matrix<Float> {
    let weights = terms.map(\.weight)
    let rows = terms[0].b.rows
    let columns = terms[0].a.columns
    let updates = terms.enumerated().map { place, term in
      sparse(
        product(
          Matrix<Float>(term.b), Matrix<Float>(term.a.scaled(by: term.scaling))
        ).elements, columns: columns, density: term.density, method, settings, numbers(place))
    }
    let elements =
      switch method {
      case .tiesSVD, .dareTiesSVD:
        Election.mean(updates, weights: weights, by: settings.majority)
      case .tiesWeighted: Election.weighted(updates, weights: weights, isNormalized: true)
      case .della: Election.weighted(updates, weights: weights, isNormalized: false)
      default: weightedSum(updates, weights)
      }
    return Matrix(rows: rows, columns: columns, elements: elements)
  }

  private static func sparse(
    _ update: [Float], columns: Int, density: Double, _ method: CombinationMethod,
    _ settings: CombinationSettings, _ numbers: RandomNumbers
  ) -> [Float] {
    // All of them: drawing lots or rescaling would only round.
    guard density < 1 else { return update }
    return switch method {
    case .dareLinearSVD, .dareTiesSVD: update.keepingRandom(density: density, numbers)
    case .breadcrumbs: update.keepingMiddle(density: density, outliers: settings.outliers)
    case .della:
      update.keepingByRank(
        density: density, epsilon: settings.epsilon, columns: columns, numbers)
    default: update.keepingLargest(density: density)
    }
  }
}
