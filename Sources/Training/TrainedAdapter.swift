import Checkpoints
package import Files
package import JSON
package import Models
import Tensors

/// What is trained of a model as PEFT saves it, adapters and whole weights: `adapter_config.json` and
/// `adapter_model.safetensors`.
package struct TrainedAdapter {
  /// The file of the tensors.
  package static let tensorsName = "adapter_model.safetensors"
  /// The file of the configuration.
  package static let configurationName = Checkpoint.adapterConfigName

  private let model: Llama
  /// What `adapter_config.json` says.
  private let configuration: JSON

  package init(_ model: Llama, configuration: JSON) {
    self.model = model
    self.configuration = configuration
  }

  /// All tensors, B as (outputs, rank), both factors with their frozen rows; a table of both ends
  /// twice, as PEFT has it.
  private var items: [TensorFile.Item] {
    model.adapters.flatMap { _, adapter in
      let (a, b) = adapter.all
      return [
        TensorFile.Item(name: adapter.a.name, shape: [a.count, a.columns], rows: a),
        TensorFile.Item(
          name: adapter.b.name, shape: [b.columns, b.count], rows: b, isTransposed: true),
      ]
        + [adapter.magnitude, adapter.bias].compactMap(\.self).map { vector in
          TensorFile.Item(
            name: vector.name, shape: [vector.values.columns], rows: vector.values)
        }
    }
      + model.trainedWeights.flatMap { weight in
        weight.names.map { name in
          TensorFile.Item(name: name, shape: weight.shape, rows: weight.parameter.values)
        }
      }
  }

  /// The bytes of all tensors as they are written.
  package var byteCount: Int { items.reduce(0) { $0 + 4 * $1.rows.count * $1.rows.columns } }

  /// Writes both files into a folder that is being made.
  ///
  /// - Throws: `io`.
  package func write(into output: inout StagedOutput) throws(PeftoolError) {
    try TensorFile.write(items, as: Self.tensorsName, into: &output)
    try output.write(
      Array(configuration.text(indent: 2, sortedKeys: true).utf8), to: Self.configurationName)
  }

  /// Takes all values from a folder that was written by `write`.
  ///
  /// - Throws: as `TensorFile.read`.
  package func read(from folder: String) throws(PeftoolError) {
    let items = items
    try TensorFile.read(
      Folder.path(folder, Self.tensorsName), items.map { ($0.name, $0.shape) }
    ) { place, values in
      let item = items[place]
      if item.isTransposed {
        item.rows.copy(fromTransposed: values)
      } else {
        item.rows.copy(from: values)
      }
    }
    for (_, adapter) in model.adapters { adapter.refresh() }
  }
}

extension Rows {
  fileprivate func copy(fromTransposed values: [Float]) {
    for column in 0..<columns {
      for row in 0..<count { self[row, column] = values[column * count + row] }
    }
  }
}
