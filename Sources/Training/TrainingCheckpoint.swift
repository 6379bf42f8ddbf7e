import Checkpoints
package import Files
package import JSON
import Models

/// A run's state after a step, in a folder that is whole or absent: `checkpoint-STEP`.
///
/// Beside what is trained (`TrainingResult`) it has `optimizer.safetensors`, the moments of the
/// optimizer (`NAME.exp_avg` and `NAME.exp_avg_sq`, B's transposed, or in 8 bits `NAME.state1`,
/// `.absmax1`, `.state2` and `.absmax2`) and what the method remembers, and `trainer_state.json`. A
/// run that goes on from it computes what it would have without the break, to the last bit.
package struct TrainingCheckpoint {
  private static let prefix = "checkpoint-"
  private static let stateName = "trainer_state.json"
  private static let optimizerName = "optimizer.safetensors"

  /// The checkpoints in a run's folder, from the last on.
  ///
  /// - Throws: `io`.
  package static func steps(in folder: String) throws(PeftoolError) -> [Int] {
    guard Folder.isFolder(folder) else { return [] }
    return try Folder.names(in: folder).compactMap { name in
      name.hasPrefix(prefix) ? Int(name.dropFirst(prefix.count)) : nil
    }.filter { $0 >= 0 }.sorted(by: >)
  }

  /// The folder of a step.
  package static func path(_ folder: String, step: Int) -> String {
    Folder.path(folder, "\(prefix)\(step)")
  }

  /// Writes the state after the optimizer's last step.
  ///
  /// - Parameter state: what the run wants to know again.
  /// - Throws: `io`.
  package static func write(
    _ trainer: Trainer, _ result: any TrainingResult, state: JSON, into folder: String
  ) throws(PeftoolError) {
    var output = try StagedOutput(
      .adapterFolder, at: path(folder, step: trainer.optimizer.stepCount), force: true)
    try result.write(into: &output)
    try TensorFile.write(memory(of: trainer), as: optimizerName, into: &output)
    try output.write(Array(state.text(indent: 2).utf8), to: stateName)
    try output.commit()
  }

  /// A setting that the last checkpoint was made with, if it is a text.
  ///
  /// - Throws: `damaged`, `io`.
  package static func setting(_ key: String, in folder: String) throws(PeftoolError) -> String? {
    guard let step = try steps(in: folder).first,
      case .string(let value) = try state(after: step, in: folder)["settings"]?[key]
    else { return nil }
    return value
  }

  /// What the run has left there beside the tensors.
  ///
  /// - Throws: `damaged`, `io`.
  package static func state(after step: Int, in folder: String) throws(PeftoolError) -> JSON {
    try JSON(opening: Folder.path(path(folder, step: step), stateName))
  }

  /// Brings a trainer to the state after a step.
  ///
  /// - Throws: `different` where the checkpoint is of something else, `damaged`, `io`.
  package static func read(
    _ trainer: Trainer, _ result: any TrainingResult, step: Int, from folder: String
  ) throws(PeftoolError) {
    let path = path(folder, step: step)
    try result.read(from: path)
    try TensorFile.read(memory(of: trainer), from: Folder.path(path, optimizerName))
    trainer.optimizer.restore(stepCount: step)
  }

  /// The optimizer's moments and what the method remembers.
  private static func memory(of trainer: Trainer) -> [TensorFile.Item] {
    trainer.optimizer.state
      + trainer.method.state.map { name, rows in
        .init(name: name, shape: [rows.count, rows.columns], rows: rows)
      }
  }

  /// Removes all checkpoints but some.
  ///
  /// - Throws: `io`.
  package static func prune(in folder: String, keeping kept: Set<Int>) throws(PeftoolError) {
    for step in try steps(in: folder) where !kept.contains(step) {
      try Folder.remove(path(folder, step: step))
    }
  }
}
