import Checkpoints
package import Files
package import Models

/// A model that is trained whole, as checkpoints save it: its f32 values by their names.
package struct TrainedModel: TrainingResult {
  private static let tensorsName = "model.safetensors"

  private let model: Llama

  /// A model of which all is trained.
  package init(_ model: Llama) { self.model = model }

  private var items: [TensorFile.Item] {
    model.trainedWeights.map { weight in
      TensorFile.Item(
        name: weight.parameter.name, shape: weight.shape, rows: weight.parameter.values)
    }
  }

  /// As `TrainingResult.byteCount`.
  package var byteCount: Int { items.reduce(0) { $0 + $1.byteCount } }

  /// Writes the tensors.
  ///
  /// - Throws: `io`.
  package func write(into output: inout StagedOutput) throws(PeftoolError) {
    try TensorFile.write(items, as: Self.tensorsName, into: &output)
  }

  /// Takes all values from a folder that was written by `write`.
  ///
  /// - Throws: as `TensorFile.read`.
  package func read(from folder: String) throws(PeftoolError) {
    try TensorFile.read(items, from: Folder.path(folder, Self.tensorsName))
  }
}
