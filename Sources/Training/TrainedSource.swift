package import Checkpoints
package import Files
import JSON
package import Models
package import Tensors

/// A checkpoint seen with the values to which its model has been trained, in f32; what is not trained
/// stays as it is.
///
/// Memory: none of its own.
package struct TrainedSource: TensorView {
  package let tensors: [TensorInfo]
  /// The source of the checkpoint.
  package let viewed: any TensorSource
  private let trained: [ExactName: Rows]

  /// Shows a checkpoint with a model's trained weights; an output embedding that is a copy of the
  /// input embedding's table gets that.
  package init(_ checkpoint: Checkpoint, _ model: Llama) {
    viewed = checkpoint.source
    var trained: [ExactName: Rows] = [:]
    for weight in model.trainedWeights {
      trained[ExactName(weight.parameter.name)] = weight.parameter.values
    }
    if model.configuration.isTied {
      trained[ExactName(TrainedWeights.head + ".weight")] =
        trained[ExactName(TrainedWeights.embedding + ".weight")]
    }
    self.trained = trained
    tensors = checkpoint.tensors.map { info in
      guard trained[ExactName(info.name)] != nil else { return info }
      return TensorInfo(
        name: info.name, dtype: .f32, shape: info.shape, byteRange: 0..<4 * info.elementCount,
        fileIndex: info.fileIndex)
    }
  }

  /// Whether training has changed a tensor.
  package func isComputed(_ tensor: TensorInfo) -> Bool { trained[ExactName(tensor.name)] != nil }

  package func read(
    _ tensor: TensorInfo, bytes range: Range<Int>, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    guard let rows = trained[ExactName(tensor.name)] else {
      return try viewed.read(tensor, bytes: range, into: &buffer)
    }
    rows.withSpan { values in
      // A float is its bytes.
      unsafe buffer.copy(values.span.bytes.extracting(range))
    }
  }
}
