/// How updates are combined.
package struct CombinationSettings: Sendable {
  /// The method.
  package var method = CombinationMethod.cat
  /// How TIES elects signs.
  package var majority = Election.Rule.total
  /// The share of the largest entries that breadcrumbs drops (mergekit's `gamma`).
  package var outliers = 0.01
  /// How far DELLA's probabilities lie from the density (mergekit's `epsilon`).
  package var epsilon = 0.15
  /// What random numbers are drawn from.
  package var seed: UInt64 {
    get { decomposition.seed }
    set { decomposition.seed = newValue }
  }
  /// The rank of the result; nil for the method's own.
  package var rank: RankChoice?
  /// What the pairs of all modules may take, of `svd`: each gets a rank of its own, whatever `rank` says.
  package var budget: RankBudget?
  /// Whether the result of one adapter has its scaling, alpha over the rank, by module, and not 1.
  package var keepsScaling = false
  /// How whole updates are decomposed.
  package var decomposition = Decomposition()
  /// What the result is; nil for what the operands are.
  package var form: Form?

  /// The two that a sum may be.
  package enum Form: String, CaseIterable, Sendable {
    case lora, dora
  }

  package init() {}
}
