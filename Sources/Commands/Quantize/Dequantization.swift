import Adapters
import Checkpoints
import Files
import Tensors

/// The plan of `dequantize`: a quantized model's own tensors, and its weights as what their codes
/// stand for.
struct Dequantization: Sendable {
  /// The model as it is written.
  let model: Checkpoint
  /// Its tensors, in the order in which transformers fills shards.
  let tensors: [Conversion.Tensor]
  /// The weights that are made of codes.
  let weightCount: Int

  /// Plans for a quantized model.
  ///
  /// - Throws: as `Checkpoint.dequantized`.
  init(_ checkpoint: Checkpoint) throws(PeftoolError) {
    model = try checkpoint.dequantized()
    let source = model.source
    weightCount = (source as? DequantizedSource)?.weights.count ?? 0
    tensors = source.tensors
      .map { .init(name: $0.name, stored: StoredTensor($0, in: source), dtype: $0.dtype) }
      .sorted { ParameterOrder($0.name) < ParameterOrder($1.name) }
  }

  /// What writes it, in shards of at most so many bytes.
  ///
  /// - Throws: as `SafetensorsHeader.encode`.
  func conversion(
    to path: String, shardByteCount: Int
  ) throws(PeftoolError) -> Conversion {
    let layout = try CheckpointLayout(
      saving: tensors.map(\.layoutItem), maximumByteCount: shardByteCount,
      parameterCount: tensors.reduce(0) { $0 + $1.stored.info.elementCount })
    return Conversion(
      tensors: tensors, output: ModelOutput(to: .directory(path), layout, inputs: [model.source]))
  }
}
