import Adapters
import Checkpoints
import Files
import LinearAlgebra
import Tensors

/// What a merged model has lost of its adapters' changes by being quantized again.
struct RequantizationLoss: Sendable {
  /// ‖Q − W'‖ / ‖W' − W‖ over all weights that have changed: W of the base, W' merged, and Q what the
  /// new codes stand for.
  let value: Double

  /// Compares what has been written with what was merged.
  ///
  /// - Parameters:
  ///   - quantization: what was quantized, with the merged weights.
  ///   - base: what the base's codes stand for.
  ///   - path: the model that was written.
  /// - Throws: `io`; as `Checkpoint.dequantized`.
  init(
    of quantization: QuantizePlan, base: Checkpoint, written path: String, threads: Int?
  ) throws(PeftoolError) {
    let written = try Checkpoint(opening: path).dequantized(otherDType: .f32)
    let weights = quantization.weights
    let pass = ElementPass(elementCounts: weights.map { $0.rowCount * $0.columnCount })
    let sums = try pass.run(
      threads: threads ?? availableProcessorCount
    ) { (segment, scratch) throws(PeftoolError) in
      let name = weights[segment.item].tensor.info.name
      guard let old = base[name], let new = written[name] else {
        throw PeftoolError(.different, "is not in both models", tensor: name, path: path)
      }
      let merged = weights[segment.item].tensor
      var sums = (lost: 0.0, change: 0.0)
      for elements in segment.blocks {
        try merged.source.read(
          merged.info, elements: elements, as: merged.dtype, into: &scratch.bytes)
        try written.source.read(
          new, elements: elements, as: new.dtype, into: &scratch.otherBytes)
        sums.lost += scratch.distance((merged.dtype, new.dtype), count: elements.count)
        try base.source.read(old, elements: elements, as: old.dtype, into: &scratch.otherBytes)
        sums.change += scratch.distance((merged.dtype, old.dtype), count: elements.count)
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
