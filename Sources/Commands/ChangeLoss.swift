import Adapters
import Checkpoints
import Files
import LinearAlgebra
import Tensors

/// What a model that was written has lost of its changes, by being quantized again or rounded.
struct ChangeLoss: Sendable {
  /// ‖Q − W'‖ / ‖W' − W‖ over all weights that have changed: W of the base, W' of the change, and Q
  /// what was written.
  let value: Double

  /// Compares what has been written with what it was made of.
  ///
  /// - Parameters:
  ///   - weights: those that have changed.
  ///   - base: the model that was changed, or what its codes stand for.
  ///   - written: the model that was written, or what its codes stand for.
  /// - Throws: `io`; `different` where one has not the weight.
  init(
    of weights: [StoredTensor], base: Checkpoint, written: Checkpoint, threads: Int?
  ) throws(PeftoolError) {
    let pass = ElementPass(elementCounts: weights.map(\.info.elementCount))
    let sums = try pass.run(
      threads: threads ?? availableProcessorCount
    ) { (segment, scratch) throws(PeftoolError) in
      let weight = weights[segment.item]
      let name = weight.info.name
      guard let old = base[name], let new = written[name] else {
        throw PeftoolError(.different, "is not in both models", tensor: name, path: written.path)
      }
      var sums = (lost: 0.0, change: 0.0)
      for elements in segment.blocks {
        try weight.source.read(
          weight.info, elements: elements, as: weight.dtype, into: &scratch.bytes)
        try written.source.read(
          new, elements: elements, as: new.dtype, into: &scratch.otherBytes)
        sums.lost += scratch.distance((weight.dtype, new.dtype), count: elements.count)
        try base.source.read(old, elements: elements, as: old.dtype, into: &scratch.otherBytes)
        sums.change += scratch.distance((weight.dtype, old.dtype), count: elements.count)
      }
      return sums
    }
    let all = sums.joined().reduce(into: (lost: 0.0, change: 0.0)) {
      $0.lost += $1.lost
      $0.change += $1.change
    }
    value = all.change > 0 ? (all.lost / all.change).squareRoot() : 0
  }
}

extension ElementScratch {
  /// The squared distance of both blocks' first `count` elements, in f32.
  fileprivate mutating func distance(_ dtypes: (DType, DType), count: Int) -> Double {
    Self.distance(bytes, otherBytes, dtypes, count: count, &singles)
  }

  private static func distance(
    _ left: borrowing Block, _ right: borrowing Block, _ dtypes: (DType, DType), count: Int,
    _ values: inout Values<Float>
  ) -> Double {
    values.readLeft(left.bytes(dtypes.0.byteCount(of: count)), dtypes.0, count: count)
    values.readRight(right.bytes(dtypes.1.byteCount(of: count)), dtypes.1, count: count)
    return Float.sumOfSquaredChange(values.right.span, from: values.left.span, count: count)
  }
}
