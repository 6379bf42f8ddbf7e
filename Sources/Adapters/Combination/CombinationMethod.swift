/// A way of making one update of several.
///
/// Each is a case of this table and a file of this folder. Names are PEFT's where PEFT has the
/// method (`add_weighted_adapter`'s `combination_type`), and the field's else.
package enum CombinationMethod: String, CaseIterable, Sendable {
  // Exact, or the nearest of a rank.
  case cat, svd
  // PEFT's on A and B apart, which has cross terms.
  case linear
  case ties
  case dareLinear = "dare_linear"
  case dareTies = "dare_ties"
  case magnitudePrune = "magnitude_prune"
  // PEFT's on whole updates.
  case tiesSVD = "ties_svd"
  case dareLinearSVD = "dare_linear_svd"
  case dareTiesSVD = "dare_ties_svd"
  case magnitudePruneSVD = "magnitude_prune_svd"
  // Beyond PEFT, on whole updates.
  case tiesWeighted = "ties_weighted"
  case breadcrumbs, della, slerp, knots, tsv

  /// What it does, in a line.
  package var summary: String {
    switch self {
    case .cat: "the sum, exactly; ranks add up"
    case .svd: "the nearest to the sum of a rank"
    case .linear: "PEFT's: A and B are summed apart, which adds cross terms"
    case .ties: "PEFT's: TIES on A and B apart"
    case .dareLinear: "PEFT's: random entries of A and of B dropped, then linear"
    case .dareTies: "PEFT's: random entries of A and of B dropped, then TIES"
    case .magnitudePrune: "PEFT's: the small entries of A and of B dropped, then linear"
    case .tiesSVD: "TIES on whole updates, then the nearest of a rank"
    case .dareLinearSVD: "random entries of updates dropped, summed, then the nearest of a rank"
    case .dareTiesSVD: "random entries of updates dropped, TIES, then the nearest of a rank"
    case .magnitudePruneSVD: "small entries of updates dropped, summed, then the nearest of a rank"
    case .tiesWeighted: "mergekit's TIES: signs are elected by weight"
    case .breadcrumbs: "Model Breadcrumbs: the largest and the small entries dropped"
    case .della: "DELLA: entries dropped by chance, the small ones more often, then weighted TIES"
    case .slerp: "on the sphere between two updates"
    case .knots: "KnOTS: TIES in a basis that the updates share"
    case .tsv: "TSV-M: singular vectors made orthogonal to each other"
    }
  }

  /// Whether it works on A and B apart, and so needs updates of one rank.
  package var isApart: Bool {
    switch self {
    case .linear, .ties, .dareLinear, .dareTies, .magnitudePrune: true
    default: false
    }
  }

  /// Whether it forms the whole update of a module.
  package var isDense: Bool {
    switch self {
    case .tiesSVD, .dareLinearSVD, .dareTiesSVD, .magnitudePruneSVD, .tiesWeighted, .breadcrumbs,
      .della:
      true
    default: false
    }
  }

  /// Whether it drops entries, and so needs a density.
  package var hasDensity: Bool {
    switch self {
    case .cat, .svd, .linear, .slerp, .tsv: false
    default: true
    }
  }

  /// Whether it elects signs of the entries as they are, by one of two rules.
  package var electsSigns: Bool {
    switch self {
    case .ties, .dareTies, .tiesSVD, .dareTiesSVD, .knots: true
    default: false
    }
  }

  /// Whether it draws random numbers.
  package var isRandom: Bool {
    switch self {
    case .dareLinear, .dareTies, .dareLinearSVD, .dareTiesSVD, .della: true
    default: false
    }
  }
}
