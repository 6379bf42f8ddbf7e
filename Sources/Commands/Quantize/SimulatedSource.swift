import Adapters
import Checkpoints
import Files
import JSON
import Tensors

/// A model as it would be after quantization: its weights coded and decoded when they are read.
///
/// What `dequantize` makes of what `quantize` makes of it, weight by weight; all other tensors are
/// the model's own.
///
/// Memory: for a range that is read the steps that it touches, as they are, as codes and decoded; a
/// `Conv1D`, which is turned around, is held whole, and four of them are kept.
struct SimulatedSource: TensorView {
  let tensors: [TensorInfo]
  private let plan: QuantizePlan
  private let weights: [ExactName: Int]
  private let offsets: [Float?]
  private let turned = RecentBlocks()

  /// Looks at the weights of a plan; with double quantization it reads them all.
  ///
  /// - Throws: as `Quantize.offsets`.
  init(
    _ plan: QuantizePlan, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) {
    self.plan = plan
    offsets = try Quantize(plan: plan).offsets(threads: threads, progress)
    var weights: [ExactName: Int] = [:]
    for (place, weight) in plan.weights.enumerated() {
      weights[ExactName(weight.tensor.info.name)] = place
    }
    self.weights = weights
    tensors = plan.model.tensors.map { info in
      guard let place = weights[ExactName(info.name)] else { return info }
      let dtype = plan.weights[place].dtype
      return TensorInfo(
        name: info.name, dtype: dtype, shape: info.shape,
        byteRange: 0..<info.elementCount * dtype.bitCount / 8, fileIndex: info.fileIndex)
    }
  }

  var viewed: any TensorSource { plan.model.source }

  func isComputed(_ tensor: TensorInfo) -> Bool { weights[ExactName(tensor.name)] != nil }

  func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    guard let place = weights[ExactName(tensor.name)] else {
      return try viewed.read(tensor, bytes: range, into: &buffer)
    }
    guard !range.isEmpty else { return }
    let weight = plan.weights[place]
    let size = weight.dtype.bitCount / 8
    guard weight.linear.isTransposed else {
      let unit = weight.stepUnitElementCount
      let first = range.lowerBound / size / unit * unit
      let last = ((range.upperBound - 1) / size / unit + 1) * unit
      let elements = first..<min(last, weight.rowCount * weight.columnCount)
      let block = try restore(elements, of: place)
      block.copy(range.lowerBound - first * size..<range.upperBound - first * size, into: &buffer)
      return
    }
    let block = try turned.value(of: tensor.name) { () throws(PeftoolError) in
      let (rows, columns) = (weight.rowCount, weight.columnCount)
      return SharedBlock(
        try restore(0..<rows * columns, of: place)
          .transposed(rows: rows, columns: columns, elementByteCount: size))
    }
    block.copy(range, into: &buffer)
  }

  private func restore(
    _ elements: Range<Int>, of place: Int
  ) throws(PeftoolError) -> Block {
    let weight = plan.weights[place]
    var quantizer = WeightQuantizer()
    var block = Block(byteCount: 0)
    try quantizer.encode(elements, of: weight, offset: offsets[place])
    quantizer.restore(elements, of: weight, offset: offsets[place], into: &block)
    return block
  }
}
