package import Files
package import JSON
import Models

/// The sparse changes that SHiRA trains, as PEFT saves them: `adapter_config.json` and
/// `adapter_model.safetensors`.
package struct TrainedSparseAdapter: TrainedFiles {
  private let method: SparseWeights
  /// What `adapter_config.json` says.
  private let configuration: JSON

  /// - Parameter trainer: one of SHiRA.
  package init(_ trainer: Trainer, configuration: JSON) {
    guard let method = trainer.method as? SparseWeights else {
      preconditionFailure("a trainer of SHiRA")
    }
    self.method = method
    self.configuration = configuration
  }

  private var items: [TensorFile.Item] {
    method.items.flatMap { matrix in
      let count = matrix.places.count
      return [
        TensorFile.Item(name: matrix.change.name, shape: [count], rows: matrix.change.values),
        TensorFile.Item(
          name: matrix.indicesName, shape: [2, count],
          .integers(get: { matrix.indices }, set: matrix.take(indices:))),
      ]
    }
  }

  /// As `TrainingResult.byteCount`.
  package var byteCount: Int { items.reduce(0) { $0 + $1.byteCount } }

  /// Writes both files into a folder that is being made.
  ///
  /// - Throws: `io`.
  package func write(into output: inout StagedOutput, isFinished: Bool) throws(PeftoolError) {
    try TensorFile.write(items, as: TrainedAdapter.tensorsName, into: &output)
    try output.write(
      Array(configuration.text(indent: 2, sortedKeys: true).utf8),
      to: TrainedAdapter.configurationName)
  }

  package func read(from folder: String) throws(PeftoolError) {
    try TensorFile.read(items, from: Folder.path(folder, TrainedAdapter.tensorsName))
    for matrix in method.items { matrix.moveWeight() }
  }
}
