import Files
import LinearAlgebra
import Tensors

/// A module of an adapter on its way from a layer of one model to a layer of another.
struct CarriedModule: Sendable {
  let module: LowRankAdapter.Module
  /// The path in the new model.
  let path: String
  let source: BaseWeight
  let target: BaseWeight

  /// The bytes that are read for it.
  var byteCount: Int {
    module.byteCount + source.stored.info.byteCount + target.stored.info.byteCount
  }

  /// The layer in the new model.
  var layer: Layer {
    Layer(
      path: path, kind: .linear, outputCount: target.outputCount,
      inputShape: [target.inputCount])
  }
}

/// Where a module meets the streams of two models.
struct StreamEnds: Sendable {
  /// The norms' weights; nil where the inputs are no part of the stream.
  let norms: (source: StoredTensor, target: StoredTensor)?
  /// Whether the outputs are added to the stream.
  let isAdded: Bool
}

extension CarriedModule {
  /// Carries the factors with the stream, and tells how near the weights are to each other then.
  ///
  /// A·diag(γ_s) reads the old stream as it is, and A·diag(γ_s)·R the new one, of which the layer sees
  /// γ_t ∘ x·√H_t / ‖x‖: A' = √(H_s/H_t)·A·diag(γ_s)·R·diag(1/γ_t), whatever the length of x. B' = c·Rᵀ·B
  /// where the outputs are added to the stream. Energies are those of updates that read the stream as
  /// it is, without c.
  ///
  /// - Throws: `different` where a norm of the new model has a zero; `io`, `damaged` where a value is
  ///   not finite.
  func carried(
    _ before: Pair, by map: StreamMap, _ ends: StreamEnds, _ options: Transfer.Options
  ) throws(PeftoolError) -> (
    pair: Pair, energy: (before: Double, after: Double), overlap: ModuleResult.Overlap
  ) {
    let gains = try ends.norms.map { (norms) throws(PeftoolError) in
      (source: try norms.source.values(Double.self), target: try norms.target.values(Double.self))
    }
    if let norm = ends.norms?.target, let zero = gains?.target.firstIndex(of: 0) {
      throw norm.at(
        PeftoolError(.different, "is 0 at \(zero): no factor can make up for what it takes away"))
    }
    let read = Pair(a: gains.map { before.a.scaled(columns: $0.source) } ?? before.a, b: before.b)
    let moved = Pair(
      a: ends.norms == nil ? read.a : product(read.a, map.r),
      b: ends.isAdded ? product(map.r, read.b, transposing: .left) : read.b)
    let width = (Double(map.r.rows) / Double(map.r.columns)).squareRoot()
    let pair = Pair(
      a: gains.map { moved.a.scaled(columns: $0.target.map { width / $0 }) } ?? moved.a,
      b: ends.isAdded ? moved.b.scaled(by: map.scale) : moved.b)
    let spaces = try (
      source: Subspaces(of: source, gains: gains?.source, options).mapped(
        outputs: ends.isAdded ? map.r : nil, inputs: ends.norms == nil ? nil : map.r),
      target: Subspaces(of: target, gains: gains?.target, options)
    )
    return (pair, (read.energy, moved.energy), spaces.target.overlap(with: spaces.source))
  }
}
