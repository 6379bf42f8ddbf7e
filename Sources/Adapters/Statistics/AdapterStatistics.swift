import Checkpoints
package import Files
import LinearAlgebra
import Tensors

/// The figures of an adapter's updates, module by module, from their factors.
///
/// No update is formed: singular values are those of the small core between two QR factors. The
/// weights of a base are read once, by blocks of rows.
///
/// Peak memory: for each thread a module's factors in f64 a few times and, with a base, 4 MB of its
/// weight; for DoRA (out, rank) numbers more.
package struct AdapterStatistics: Sendable {
  /// Whether the updates are of DoRA; then the figures but those of the change W' − W are of s·B·A.
  package let usesDoRA: Bool
  private let modules: [(module: LowRankAdapter.Module, weight: BaseWeight?)]
  private let sources: [any TensorSource]

  /// Plans the work; of the tensors nothing is read.
  ///
  /// - Parameter isIncluded: whether a module is looked at.
  /// - Throws: `different` where a module is not in the base, or has another shape there,
  ///   `unsupported` where a weight has no arithmetic.
  package init(
    of adapter: LowRankAdapter, base: BaseModel?,
    where isIncluded: (LowRankAdapter.Module) -> Bool = { _ in true }
  ) throws(PeftoolError) {
    usesDoRA = adapter.usesDoRA
    let names = base.map { ModuleNames($0) }
    var modules: [(module: LowRankAdapter.Module, weight: BaseWeight?)] = []
    for module in adapter.modules where isIncluded(module) {
      if let base, let names {
        modules.append((module, try BaseWeight(of: module, in: base, names)))
      } else {
        modules.append((module, nil))
      }
    }
    self.modules = modules
    sources = adapter.sources + [base?.checkpoint.source].compactMap(\.self)
  }

  /// The bytes that are read.
  package var byteCount: Int { modules.reduce(0) { $0 + Self.byteCount($1.module, $1.weight) } }

  private static func byteCount(_ module: LowRankAdapter.Module, _ weight: BaseWeight?) -> Int {
    module.byteCount + (weight?.stored.info.byteCount ?? 0)
  }

  /// The figures of each module, in the order of the adapter.
  ///
  /// Precision: f64. They do not depend on the number of threads.
  ///
  /// - Parameter progress: is told of bytes read, from any thread.
  /// - Throws: `io`, `damaged` where a value is not finite or a row of DoRA has no length,
  ///   `unsupported` where a decomposition does not converge, `different` where a file changed
  ///   meanwhile.
  package func run(
    threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> [DeltaStatistics] {
    let found = try mapBlocks(count: modules.count, threads: threads) {
      (place) throws(PeftoolError) in
      let (module, weight) = modules[place]
      let statistics = try Self.statistics(of: module, weight)
      progress(Self.byteCount(module, weight))
      return statistics
    }
    for source in sources { try source.verifyUnchanged() }
    return found
  }

  private static func statistics(
    of module: LowRankAdapter.Module, _ weight: BaseWeight?
  ) throws(PeftoolError) -> DeltaStatistics {
    let term = try module.term(weight: 1)
    let factor = term.scaling.magnitude
    var (weightNorm, changeNorm): (Double?, Double?) = (nil, nil)
    if let weight, let magnitude = module.magnitude {
      let base = try BaseProjection(of: weight, onto: term.a)
      weightNorm = base.weightNorm
      do throws(PeftoolError) {
        changeNorm = try base.changeNorm(of: term, magnitude: magnitude.values())
      } catch {
        throw weight.stored.at(error)
      }
    } else if let weight {
      weightNorm = try weight.norm()
    }
    return DeltaStatistics(
      path: module.path, rank: module.rank,
      singularValues: try LowRankSVD.of(term.b, term.a).singularValues.map { $0 * factor },
      weightNorm: weightNorm, changeNorm: changeNorm)
  }
}
