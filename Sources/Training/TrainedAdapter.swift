import Checkpoints
package import Files
package import JSON
package import Models
import Tensors

/// What is trained of a model as PEFT saves it, adapters and whole weights: `adapter_config.json` and
/// `adapter_model.safetensors`.
package struct TrainedAdapter: TrainingResult {
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
  ///
  /// - Parameter isPruned: whether ranks that AdaLoRA has pruned are left out.
  private func items(isPruned: Bool = false) -> [TensorFile.Item] {
    model.adapters.flatMap { _, adapter in
      var (a, b) = adapter.all
      var e = adapter.e?.values
      if isPruned, let ranks = adapter.keptRanks {
        (a, b) = (a.selecting(ranks), b.selecting(ranks))
        e = e?.selecting(ranks)
      }
      return [
        TensorFile.Item(name: adapter.a.name, shape: [a.count, a.columns], rows: a),
        TensorFile.Item(
          name: adapter.b.name, shape: [b.columns, b.count], .transposed(b)),
      ]
        + [adapter.e].compactMap(\.self).map { parameter in
          let rows = e ?? parameter.values
          return TensorFile.Item(name: parameter.name, shape: [rows.count, 1], rows: rows)
        }
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

  /// As `TrainingResult.byteCount`.
  package var byteCount: Int { items().reduce(0) { $0 + $1.byteCount } }

  /// Writes both files into a folder that is being made.
  ///
  /// - Parameter isFinished: whether training is over: what AdaLoRA has pruned is left out then.
  /// - Throws: `io`.
  package func write(into output: inout StagedOutput, isFinished: Bool) throws(PeftoolError) {
    try TensorFile.write(items(isPruned: isFinished), as: Self.tensorsName, into: &output)
    var configuration = configuration
    if isFinished, let pattern {
      configuration = try configuration.replacing([("rank_pattern", pattern)])
    }
    try output.write(
      Array(configuration.text(indent: 2, sortedKeys: true).utf8), to: Self.configurationName)
  }

  /// Writes both files, of all ranks.
  ///
  /// - Throws: `io`.
  package func write(into output: inout StagedOutput) throws(PeftoolError) {
    try write(into: &output, isFinished: false)
  }

  package func read(from folder: String) throws(PeftoolError) {
    try TensorFile.read(items(), from: Folder.path(folder, Self.tensorsName))
    for (_, adapter) in model.adapters { adapter.refresh() }
  }
}

extension TrainedAdapter {
  /// AdaLoRA's `rank_pattern`: for each layer which of its first ranks are left.
  private var pattern: JSON? {
    let members = model.adapters.compactMap { module, adapter -> JSON.Member? in
      guard let kept = adapter.keptRanks.map(Set.init) else { return nil }
      return .init(
        module + ".lora_E", .array((0..<adapter.rank).map { .bool(kept.contains($0)) }))
    }
    return members.isEmpty ? nil : .object(members)
  }
}

extension LoRA {
  /// The ranks whose singular value is not 0; nil where there are no such values.
  fileprivate var keptRanks: [Int]? {
    e.map { e in (0..<rank).filter { e.values[$0, 0] != 0 } }
  }
}

extension Rows {
  /// A copy of some of the rows.
  fileprivate func selecting(_ places: [Int]) -> Rows {
    let rows = Rows(places.count, columns)
    for (row, place) in places.enumerated() {
      rows.rows(row..<row + 1).copy(from: self.rows(place..<place + 1))
    }
    return rows
  }
}
