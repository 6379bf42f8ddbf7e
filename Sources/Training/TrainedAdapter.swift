import Adapters
import Checkpoints
package import Files
package import JSON
package import Models
import Tensors

/// What is trained of a model as PEFT saves it, adapters and whole weights: `adapter_config.json` and
/// `adapter_model.safetensors`.
package struct TrainedAdapter: TrainedFiles {
  /// The file of the tensors.
  package static let tensorsName = "adapter_model.safetensors"
  /// The file of the configuration.
  package static let configurationName = Checkpoint.adapterConfigName

  private let model: Llama
  /// What `adapter_config.json` says.
  private let configuration: JSON
  /// Whether ranks that are 0 are left out in the end.
  private let leavesRanks: Bool

  package init(_ model: Llama, configuration: JSON, leavesRanks: Bool = false) {
    self.model = model
    self.configuration = configuration
    self.leavesRanks = leavesRanks
  }

  /// All tensors, B as (outputs, rank), both factors with their frozen rows; a table of both ends
  /// twice, as PEFT has it.
  ///
  /// - Parameter isPruned: whether ranks that are 0 are left out.
  private func items(isPruned: Bool = false) -> [TensorFile.Item] {
    model.adapters.flatMap { _, adapter in
      var (a, b) = adapter.all
      var e = adapter.e?.values
      if isPruned {
        let ranks = adapter.keptRanks
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
  /// - Parameter isFinished: whether training is over: ranks that are 0 are left out then.
  /// - Throws: `io`.
  package func write(into output: inout StagedOutput, isFinished: Bool) throws(PeftoolError) {
    try TensorFile.write(
      items(isPruned: isFinished && leavesRanks), as: Self.tensorsName, into: &output)
    var configuration = configuration
    if isFinished, leavesRanks { configuration = try configuration.replacing(patterns) }
    try output.write(
      Array(configuration.text(indent: 2, sortedKeys: true).utf8), to: Self.configurationName)
  }

  package func read(from folder: String) throws(PeftoolError) {
    try TensorFile.read(items(), from: Folder.path(folder, Self.tensorsName))
    for (_, adapter) in model.adapters { adapter.refresh() }
  }
}

extension TrainedAdapter {
  /// The ranks that are left: AdaLoRA's `rank_pattern`, which of a layer's first ranks they are; or
  /// how many, with the alpha by which each layer's scale stays what it was.
  private var patterns: [(String, JSON)] {
    if model.adapters.contains(where: { $0.adapter.e != nil }) {
      let members = model.adapters.map { module, adapter in
        let kept = Set(adapter.keptRanks)
        return JSON.Member(
          module + ".lora_E", .array((0..<adapter.rank).map { .bool(kept.contains($0)) }))
      }
      return [("rank_pattern", .object(members))]
    }
    let isRSLoRA = configuration["use_rslora"] == .bool(true)
    let ranks = model.adapters.map { ($0.module, $0.adapter.keptRanks.count, $0.adapter.scaling) }
    return [
      ("rank_pattern", .object(ranks.map { .init($0.0, .number($0.1)) })),
      (
        "alpha_pattern",
        .object(
          ranks.map { module, rank, scaling in
            let divisor = isRSLoRA ? Double(rank).squareRoot() : Double(rank)
            return .init(module, PEFTConfiguration.number(Double(scaling) * divisor))
          })
      ),
    ]
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
