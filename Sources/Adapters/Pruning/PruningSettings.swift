/// What is taken out of an adapter: entries, whole modules or both.
package struct PruningSettings: Equatable, Sendable {
  /// Which entries are kept; nil for all.
  package var entries: Entries?
  /// Which modules are kept; nil for all.
  package var modules: Modules?

  package init(entries: Entries? = nil, modules: Modules? = nil) {
    self.entries = entries
    self.modules = modules
  }

  /// The largest entries by magnitude, a share of all.
  package enum Entries: Equatable, Sendable {
    /// Those of A and B together, balanced.
    case factors(density: Double)
    /// Those of s·B·A, which is then cut to a rank: the module's own, or another; `isExact` has LAPACK
    /// decompose modules of any size.
    case update(density: Double, rank: RankChoice?, isExact: Bool)

    /// The share that is kept, more than 0 and at most 1.
    package var density: Double {
      switch self {
      case .factors(let density), .update(let density, _, _): density
      }
    }
  }

  /// How long a module's change has to be, in the Frobenius norm.
  package enum Modules: Equatable, Sendable {
    /// So long.
    case norm(Double)
    /// This share of the longest of the adapter.
    case share(Double)

    /// The least norm that is kept.
    func limit(longest: Double) -> Double {
      switch self {
      case .norm(let norm): norm
      case .share(let share): share * longest
      }
    }
  }
}
