package import Files
import YAML

/// A combination as a file tells it; `Formats/recipe.md` describes its keys.
///
/// What it does not say is nil.
package struct Recipe: Sendable {
  /// An adapter of it.
  package struct Adapter: Sendable {
    /// Its path, from the working folder on.
    package var path: String
    /// The factor on its change, for some modules at least.
    package var weight: Parameter?
    /// The share of its entries that are kept, for some modules at least.
    package var density: Parameter?

    package init(path: String) { self.path = path }
  }

  /// The adapters, in their order.
  package var adapters: [Adapter] = []
  /// The method.
  package var method: CombinationMethod?
  /// The path of the model that the adapters are for, from the working folder on.
  package var base: String?
  /// The layers of that model.
  package var layerCount: Int?
  /// The weight where an adapter says none.
  package var weight: Parameter?
  /// The density where an adapter says none.
  package var density: Parameter?
  /// How many singular values are kept.
  package var rank: RankChoice?
  /// How TIES elects signs.
  package var majority: Election.Rule?
  /// The share of the largest entries that breadcrumbs drops.
  package var gamma: Double?
  /// How far DELLA's probabilities lie from the density.
  package var epsilon: Double?
  /// What random numbers are drawn from.
  package var seed: UInt64?
  /// Whether every decomposition is LAPACK's.
  package var isExact: Bool?

  /// One that says nothing yet.
  package init() {}

  /// Reads a file; of the adapters nothing is opened.
  ///
  /// - Throws: as `YAML`, and `damaged` for keys that are not known and values that are not of their
  ///   key, with path, line and key.
  package init(opening path: String) throws(PeftoolError) {
    let yaml = try YAML(opening: path)
    do throws(PeftoolError) {
      self = try RecipeReader(path: path).recipe(yaml)
    } catch {
      throw error.at(path: path)
    }
  }

  /// Reads a text whose paths begin in the working folder.
  ///
  /// - Throws: as `init(opening:)`, without the path.
  package init(parsing bytes: [UInt8]) throws(PeftoolError) {
    self = try RecipeReader(path: nil).recipe(YAML(parsing: bytes))
  }

  /// The weight of each adapter: its own, else that of all, else 1.
  package var weights: [Parameter] {
    adapters.map { ($0.weight ?? Parameter([])).otherwise(weight).otherwise(1) }
  }

  /// The density of each adapter: its own, else that of all.
  package var densities: [Parameter] {
    adapters.map { ($0.density ?? Parameter([])).otherwise(density) }
  }

  /// Whether a density is given anywhere.
  package var hasDensity: Bool { density != nil || adapters.contains { $0.density != nil } }

  /// The settings, the defaults where it says nothing.
  package var settings: CombinationSettings {
    var settings = CombinationSettings()
    settings.method = method ?? settings.method
    settings.majority = majority ?? settings.majority
    settings.outliers = gamma ?? settings.outliers
    settings.epsilon = epsilon ?? settings.epsilon
    settings.seed = seed ?? settings.seed
    settings.rank = rank
    settings.decomposition.isExact = isExact ?? settings.decomposition.isExact
    return settings
  }
}
