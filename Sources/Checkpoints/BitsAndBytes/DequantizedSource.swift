package import Files
package import JSON
import Quantization
package import Tensors

/// A quantized model, seen as what its codes stand for.
///
/// A weight is level · scale in f32, rounded once to its dtype, by the formula of the codes; in
/// group-wise INT4 it is as `GroupInt4` says, each step in f32.
/// bitsandbytes' own decoder for AVX-512 takes the scales of wrong blocks where the input width is no
/// multiple of 64; its files are right, and so is this. Tensors that are not quantized are the
/// model's own.
///
/// Memory: for a range that is read the bytes of its codes and scales and a tile of 16,384 numbers;
/// a weight that is turned around is held whole, and four of them are kept; while one is made there
/// are three, and the new one twice. Of GPTQ's, AWQ's and HQQ's files, which lie by columns or halves, likewise the
/// codes and scales of four weights.
package struct DequantizedSource: TensorView {
  /// How a weight is shown.
  package struct Weight: Sendable {
    /// The weight with its codes.
    package let quantized: QuantizedWeight
    /// The type of its values.
    package let dtype: DType
    /// Whether it is shown turned around, (in, out), as a `Conv1D` has it.
    package let isTransposed: Bool

    package init(_ quantized: QuantizedWeight, dtype: DType, isTransposed: Bool) {
      self.quantized = quantized
      self.dtype = dtype
      self.isTransposed = isTransposed
    }

    fileprivate var info: TensorInfo {
      let shape = isTransposed ? quantized.shape.reversed() : quantized.shape
      return TensorInfo(
        name: quantized.name, dtype: dtype, shape: shape,
        byteRange: 0..<quantized.elementCount * dtype.bitCount / 8,
        fileIndex: quantized.codes.fileIndex)
    }
  }

  /// The weights by their names.
  package let weights: [ExactName: Weight]
  package let tensors: [TensorInfo]
  /// The quantized model.
  package let viewed: any TensorSource
  private let turned = RecentBlocks()
  private let groups = Recent<GroupCodes>()

  /// Shows some weights of a checkpoint by what their codes stand for.
  package init(_ stored: any TensorSource, weights: [Weight]) {
    viewed = stored
    var places: [ExactName: Weight] = [:]
    var codes: [ExactName: Weight] = [:]
    var companions: Set<ExactName> = []
    for weight in weights {
      places[ExactName(weight.quantized.name)] = weight
      codes[ExactName(weight.quantized.codes.name)] = weight
      companions.formUnion(weight.quantized.names.map(ExactName.init))
    }
    self.weights = places
    tensors = stored.tensors.compactMap { info in
      let name = ExactName(info.name)
      if let weight = codes[name] { return weight.info }
      return companions.contains(name) ? nil : info
    }
  }

  /// Whether a tensor is decoded when it is read.
  package func isComputed(_ tensor: TensorInfo) -> Bool { weights[ExactName(tensor.name)] != nil }

  package func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    guard let weight = weights[ExactName(tensor.name)] else {
      return try viewed.read(tensor, bytes: range, into: &buffer)
    }
    let size = weight.dtype.bitCount / 8
    precondition(range.lowerBound % size == 0 && range.count % size == 0, "whole elements")
    let decoder = WeightDecoder(weight.quantized, in: viewed, groups: groups)
    do throws(PeftoolError) {
      guard weight.isTransposed else {
        try decoder.decode(
          range.lowerBound / size..<range.upperBound / size, to: weight.dtype, into: &buffer)
        return
      }
      let block = try turned.value(of: tensor.name) { () throws(PeftoolError) in
        try Self.turn(decoder, weight)
      }
      block.copy(range, into: &buffer)
    } catch {
      throw error.at(tensor: tensor.name)
    }
  }

  private static func turn(
    _ decoder: WeightDecoder, _ weight: Weight
  ) throws(PeftoolError) -> SharedBlock {
    let (rows, columns) = (weight.quantized.shape[0], weight.quantized.shape[1])
    let size = weight.dtype.bitCount / 8
    let byteCount = rows * columns * size
    var decoded = Block(byteCount: byteCount)
    var bytes = decoded.mutableBytes(byteCount)
    try decoder.decode(0..<rows * columns, to: weight.dtype, into: &bytes)
    return SharedBlock(
      decoded.transposed(rows: rows, columns: columns, elementByteCount: size))
  }
}
