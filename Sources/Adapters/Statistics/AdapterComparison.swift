import Checkpoints
package import Files
import JSON
import LinearAlgebra
import Tensors

/// Two adapters compared by what they do to a model, not by their factors.
///
/// Of each module that both have the updates s·B·A are compared without being formed, and beside
/// them DoRA's magnitudes and `lora_bias`.
///
/// Peak memory: for each thread a module's factors of both adapters in f64 a few times.
package struct AdapterComparison: Sendable {
  /// Modules that only the first has, in its order.
  package let onlyInLeft: [String]
  /// Modules that only the second has, in its order.
  package let onlyInRight: [String]
  /// Modules that are of other kinds or shapes, and what each adapter changes.
  package let misfits: [(path: String, left: String, right: String)]
  private let pairs: [(left: LowRankAdapter.Module, right: LowRankAdapter.Module)]
  private let sources: [any TensorSource]

  /// Pairs modules by path; of the tensors nothing is read.
  package init(_ left: LowRankAdapter, _ right: LowRankAdapter) {
    var places: [ExactName: LowRankAdapter.Module] = [:]
    for module in right.modules { places[ExactName(module.path)] = module }
    var onlyInLeft: [String] = []
    var misfits: [(path: String, left: String, right: String)] = []
    var pairs: [(left: LowRankAdapter.Module, right: LowRankAdapter.Module)] = []
    for module in left.modules {
      guard let other = places.removeValue(forKey: ExactName(module.path)) else {
        onlyInLeft.append(module.path)
        continue
      }
      if other.fits(module) {
        pairs.append((module, other))
      } else {
        misfits.append((module.path, module.shapesText, other.shapesText))
      }
    }
    self.onlyInLeft = onlyInLeft
    onlyInRight = right.modules.map(\.path).filter { places[ExactName($0)] != nil }
    self.misfits = misfits
    self.pairs = pairs
    sources = left.sources + right.sources
  }

  /// The bytes that are read.
  package var byteCount: Int { pairs.reduce(0) { $0 + $1.left.byteCount + $1.right.byteCount } }

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
      let (left, right) = pairs[place]
      let comparison = try Self.compare(left, right)
      progress(left.byteCount + right.byteCount)
      return comparison
    }
    for source in sources { try source.verifyUnchanged() }
    return found
  }

  private static func compare(
    _ left: LowRankAdapter.Module, _ right: LowRankAdapter.Module
  ) throws(PeftoolError) -> DeltaComparison {
    let terms = (try left.term(weight: 1), try right.term(weight: 1))
    let cores = JointCores(terms.0, terms.1)
    let overlaps = try cores.overlaps()
    let isSame =
      terms.0.a == terms.1.a && terms.0.b == terms.1.b && terms.0.factor == terms.1.factor
    var magnitude: DeltaComparison.VectorDifference?
    if let first = left.magnitude, let second = right.magnitude {
      magnitude = .init(try first.values(), try second.values())
    }
    var bias: DeltaComparison.VectorDifference?
    if left.bias != nil || right.bias != nil {
      bias = .init(try left.scaledBias(), try right.scaledBias())
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
