import Checkpoints
package import Files
import JSON
import LinearAlgebra
import Tensors

/// Two adapters compared by what they do to a model, not by their factors.
///
/// Of each module that both have the updates s·B·A are compared without being formed, and beside
/// them DoRA's magnitudes and `lora_bias`. With the base of a DoRA adapter it is whole changes W' − W
/// that are compared, in which magnitudes are.
///
/// Peak memory: for each thread a module's factors of both adapters in f64 a few times, and with a
/// base what `WholeChanges` takes.
package struct AdapterComparison: Sendable {
  /// Modules that only the first has, in its order.
  package let onlyInLeft: [String]
  /// Modules that only the second has, in its order.
  package let onlyInRight: [String]
  /// Modules that are of other kinds or shapes, and what each adapter changes.
  package let misfits: [(path: String, left: String, right: String)]
  /// Whether whole changes are compared.
  package let isOfWholeChanges: Bool
  private let pairs: [Pair]

  private struct Pair: Sendable {
    let left: LowRankAdapter.Module
    let right: LowRankAdapter.Module
    /// The base's weight, where whole changes are compared.
    let weight: BaseWeight?

    var byteCount: Int {
      left.byteCount + right.byteCount + (weight?.stored.info.byteCount ?? 0)
    }
  }

  private let sources: [any TensorSource]

  /// Pairs modules by path; of the tensors nothing is read.
  ///
  /// - Parameter base: the model that both are for, which is needed where one is of DoRA alone.
  /// - Throws: `different` where a module is not in the base, or has another shape there.
  package init(
    _ left: LowRankAdapter, _ right: LowRankAdapter, base: BaseModel? = nil
  ) throws(PeftoolError) {
    let base = left.usesDoRA || right.usesDoRA ? base : nil
    let names = base.map { ModuleNames($0) }
    isOfWholeChanges = base != nil
    var places: [ExactName: LowRankAdapter.Module] = [:]
    for module in right.modules { places[ExactName(module.path)] = module }
    var onlyInLeft: [String] = []
    var misfits: [(path: String, left: String, right: String)] = []
    var pairs: [Pair] = []
    for module in left.modules {
      guard let other = places.removeValue(forKey: ExactName(module.path)) else {
        onlyInLeft.append(module.path)
        continue
      }
      if other.fits(module) {
        var weight: BaseWeight?
        if let base, let names { weight = try BaseWeight(of: module, in: base, names) }
        pairs.append(Pair(left: module, right: other, weight: weight))
      } else {
        misfits.append((module.path, module.shapesText, other.shapesText))
      }
    }
    self.onlyInLeft = onlyInLeft
    onlyInRight = right.modules.map(\.path).filter { places[ExactName($0)] != nil }
    self.misfits = misfits
    self.pairs = pairs
    sources = left.sources + right.sources + [base?.checkpoint.source].compactMap(\.self)
  }

  /// The bytes that are read.
  package var byteCount: Int { pairs.reduce(0) { $0 + $1.byteCount } }

  /// Compares every pair, in the order of the first adapter.
  ///
  /// Precision: f64. Nothing depends on the number of threads.
  ///
  /// - Parameter progress: is told of bytes read, from any thread.
  /// - Throws: `io`, `damaged` where a value is not finite, `unsupported` where a decomposition does
  ///   not converge, `different` where a file changed meanwhile.
  package func run(
    threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> [DeltaComparison] {
    let found = try mapBlocks(count: pairs.count, threads: threads) {
      (place) throws(PeftoolError) in
      let comparison = try Self.compare(pairs[place])
      progress(pairs[place].byteCount)
      return comparison
    }
    for source in sources { try source.verifyUnchanged() }
    return found
  }

  private static func compare(_ pair: Pair) throws(PeftoolError) -> DeltaComparison {
    let (left, right) = (pair.left, pair.right)
    let terms = (try left.term(weight: 1), try right.term(weight: 1))
    let cores = JointCores(terms.0, terms.1)
    let overlaps = try cores.overlaps()
    let isSame =
      terms.0.a == terms.1.a && terms.0.b == terms.1.b && terms.0.factor == terms.1.factor
    let magnitudes = (left: try left.magnitude?.values(), right: try right.magnitude?.values())
    var bias: DeltaComparison.VectorDifference?
    if left.bias != nil || right.bias != nil {
      bias = .init(try left.scaledBias(), try right.scaledBias())
    }
    if let weight = pair.weight {
      let whole: WholeChanges
      do throws(PeftoolError) {
        whole = try WholeChanges(terms.0, terms.1, magnitudes: magnitudes, of: weight)
      } catch {
        throw weight.stored.at(error)
      }
      return DeltaComparison(
        path: left.path, ranks: (left.rank, right.rank),
        norms: (whole.squaredNorms.left.squareRoot(), whole.squaredNorms.right.squareRoot()),
        inner: whole.inner,
        difference: isSame && magnitudes.left == magnitudes.right
          ? 0 : whole.squaredDifference.squareRoot(),
        outputOverlap: overlaps?.output, inputOverlap: overlaps?.input, magnitude: nil, bias: bias)
    }
    var magnitude: DeltaComparison.VectorDifference?
    if let first = magnitudes.left, let second = magnitudes.right {
      magnitude = .init(first, second)
    }
    return DeltaComparison(
      path: left.path, ranks: (left.rank, right.rank),
      norms: (cores.left.elements.norm, cores.right.elements.norm), inner: cores.inner,
      difference: isSame ? 0 : cores.difference, outputOverlap: overlaps?.output,
      inputOverlap: overlaps?.input, magnitude: magnitude, bias: bias)
  }
}

extension LowRankAdapter.Module {
  /// s·b of `lora_bias`, zeros where there is none.
  fileprivate func scaledBias() throws(PeftoolError) -> [Double] {
    guard let bias else { return [Double](repeating: 0, count: outputCount) }
    return try bias.values().map { $0 * scaling }
  }
}
