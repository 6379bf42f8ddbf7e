import Checkpoints
package import Files
package import JSON
package import Models
import Tensors

/// The adapters of a model as PEFT saves them: `adapter_config.json` and `adapter_model.safetensors`.
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

  /// The adapter's tensors, B as (outputs, rank), both with their frozen rows.
  private var items: [TensorFile.Item] {
    model.adapters.flatMap { _, adapter in
      let (a, b) = adapter.all
      return [
        TensorFile.Item(name: adapter.a.name, shape: [a.count, a.columns], values: a.values),
        TensorFile.Item(
          name: adapter.b.name, shape: [b.columns, b.count], values: b.transposedValues),
      ]
        + [adapter.magnitude, adapter.bias].compactMap(\.self).map { vector in
          TensorFile.Item(
            name: vector.name, shape: [vector.values.columns], values: vector.values.values)
        }
    }
  }

  /// Writes both files into a folder that is being made.
  ///
  /// - Throws: `io`.
  package func write(into output: inout StagedOutput) throws(PeftoolError) {
    try TensorFile.write(items, as: Self.tensorsName, into: &output)
    try output.write(
      Array(configuration.text(indent: 2, sortedKeys: true).utf8), to: Self.configurationName)
  }

  /// Takes the adapters' values from a folder that was written by `write`.
  ///
  /// - Throws: as `TensorFile.read`.
  package func read(from folder: String) throws(PeftoolError) {
    let items = items
    let lists = try TensorFile.read(
      Folder.path(folder, Self.tensorsName), items.map { ($0.name, $0.shape) })
    var place = 0
    for (_, adapter) in model.adapters {
      for parameter in adapter.parameters {
        switch parameter {
        case let b where b === adapter.b: adapter.all.b.copy(fromTransposed: lists[place])
        case let a where a === adapter.a: adapter.all.a.copy(from: lists[place])
        default: parameter.values.copy(from: lists[place])
        }
        place += 1
      }
      adapter.refresh()
    }
  }
}

extension Rows {
  /// The floats of the transpose, row by row.
  fileprivate var transposedValues: [Float] {
    var values: [Float] = []
    values.reserveCapacity(count * columns)
    for column in 0..<columns {
      for row in 0..<count { values.append(self[row, column]) }
    }
    return values
  }

  fileprivate func copy(fromTransposed values: [Float]) {
    for column in 0..<columns {
      for row in 0..<count { self[row, column] = values[column * count + row] }
    }
  }
}
