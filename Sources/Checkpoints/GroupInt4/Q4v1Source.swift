package import Files
import JSON
import Quantization
package import Tensors

/// A model in group-wise INT4, whose weights are seen as ggml's blocks of Q4_1 with the same codes.
///
/// Scales and offsets are rounded to F16, which is all that blocks hold. Other tensors are the
/// model's own.
///
/// Memory: for a range that is read the rows that it touches, as codes and as blocks; of layouts by
/// columns or halves four weights.
package struct Q4v1Source: TensorView {
  package let tensors: [TensorInfo]
  /// The model in INT4.
  package let viewed: any TensorSource
  private let weights: [ExactName: Int4Weight]
  private let groups = Recent<GroupCodes>()

  /// Shows the weights of a checkpoint as blocks.
  ///
  /// - Throws: `unsupported` for groups that no blocks of 32 can stand for.
  package init(_ stored: any TensorSource, weights: [Int4Weight]) throws(PeftoolError) {
    viewed = stored
    var codes: [ExactName: Int4Weight] = [:]
    var shown: [ExactName: Int4Weight] = [:]
    var companions: Set<ExactName> = []
    for weight in weights {
      guard weight.groupSize % 32 == 0, weight.inputs % weight.groupSize == 0,
        weight.groupOfInput == nil
      else {
        throw PeftoolError(
          .unsupported,
          weight.groupOfInput == nil
            ? "is in groups of \(weight.groupSize) of \(weight.inputs) inputs, and Q4_1 needs "
              + "multiples of 32 that divide them"
            : "has its inputs in groups of another order (desc_act), and Q4_1 has them in theirs",
          tensor: weight.codes.name, path: stored.files[weight.codes.fileIndex].path)
      }
      codes[ExactName(weight.codes.name)] = weight
      shown[ExactName(weight.name)] = weight
      companions.formUnion(weight.names.map(ExactName.init))
    }
    self.weights = shown
    tensors = stored.tensors.compactMap { info in
      let name = ExactName(info.name)
      guard let weight = codes[name] else { return companions.contains(name) ? nil : info }
      let count = DType.q4v1.byteCount(of: weight.outputs * weight.inputs)
      return TensorInfo(
        name: weight.name, dtype: .q4v1, shape: [weight.outputs, weight.inputs],
        byteRange: 0..<count, fileIndex: info.fileIndex)
    }
  }

  /// Whether a tensor is shown as blocks.
  package func isComputed(_ tensor: TensorInfo) -> Bool { weights[ExactName(tensor.name)] != nil }

  package func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    guard let weight = weights[ExactName(tensor.name)] else {
      return try viewed.read(tensor, bytes: range, into: &buffer)
    }
    guard !range.isEmpty else { return }
    let rowByteCount = DType.q4v1.byteCount(of: weight.inputs)
    let rows = range.lowerBound / rowByteCount..<(range.upperBound - 1) / rowByteCount + 1
    let codes =
      try weight.liesByRows
      ? weight.read(rows: rows, from: viewed)
      : groups.value(of: tensor.name) { () throws(PeftoolError) in
        try weight.read(from: viewed)
      }
    let first = weight.liesByRows ? rows.lowerBound : 0
    var blocks = Block(byteCount: rows.count * rowByteCount)
    var bytes = blocks.mutableBytes(rows.count * rowByteCount)
    codes.writeQ4v1(rows: rows.lowerBound - first..<rows.upperBound - first, into: &bytes)
    let start = range.lowerBound - rows.lowerBound * rowByteCount
    blocks.copy(start..<start + range.count, into: &buffer)
  }
}
