import Adapters
import Checkpoints
import Files
import Glibc
import JSON
import Models
import Tensors
import Training

/// What a run of `finetune` leaves in its folder: an adapter, or a model.
struct FinetuneOutput {
  private enum Kind {
    /// An adapter, with the configuration of a model whose positions it was trained to be stretched.
    case adapter(any TrainedFiles, config: JSON?)
    /// A model of the checkpoint's tensors and that configuration, in a dtype if one is wished.
    case model(TrainedModel, Llama, Checkpoint, config: JSON?, DType?)
  }

  private let kind: Kind
  private static let card = "README.md"

  /// An adapter.
  ///
  /// - Parameter config: the model's configuration, where it is another than the file's.
  init(_ adapter: any TrainedFiles, config: JSON?) { kind = .adapter(adapter, config: config) }

  /// A model that has been trained whole, in the layout of the checkpoint that it comes from.
  init(_ model: Llama, of checkpoint: Checkpoint, config: JSON?, dtype: DType?) {
    kind = .model(TrainedModel(model), model, checkpoint, config: config, dtype)
  }

  /// What checkpoints save of it.
  var result: any TrainingResult {
    switch kind {
    case .adapter(let adapter, _): adapter
    case .model(let model, _, _, _, _): model
    }
  }

  /// The file that comes last: where it is there, training is done.
  static func lastName(trainsModel: Bool) -> String {
    trainsModel ? "config.json" : TrainedAdapter.configurationName
  }

  /// Puts all files into a run's folder, the configuration last.
  ///
  /// - Parameter card: the text of the README.
  /// - Returns: of a model what rounding to its type takes of the change, nil in F32.
  /// - Throws: `io`; as `Conversion.run` and `ChangeLoss`.
  func write(
    card: String, to folder: String, threads: Int
  ) throws(PeftoolError) -> ChangeLoss? {
    let made = Folder.path(folder, "finished")
    let last: String
    var loss: ChangeLoss?
    switch kind {
    case .adapter(let adapter, let config):
      var output = try StagedOutput(.adapterFolder, at: made, force: true)
      try adapter.write(into: &output, isFinished: true)
      if let config { try output.write(config, to: Self.lastName(trainsModel: true)) }
      try output.commit()
      last = Self.lastName(trainsModel: false)
    case .model(_, let model, let checkpoint, let config, let dtype):
      loss = try Self.write(model, of: checkpoint, config, dtype, to: made, threads: threads)
      last = Self.lastName(trainsModel: true)
    }
    var readme = try StagedOutput(.file, at: Folder.path(made, Self.card), force: true)
    let file = try readme.createFile(byteCount: card.utf8.count)
    try unsafe file.write(Array(card.utf8).span.bytes, at: 0)
    try readme.commit()
    for name in try Folder.names(in: made).filter({ $0 != last }) + [last] {
      let (from, to) = (Folder.path(made, name), Folder.path(folder, name))
      try systemCall("cannot rename", path: to) { unsafe Glibc.rename(from, to) }
    }
    try Folder.sync(folder)
    try Folder.remove(made)
    return loss
  }

  private static func write(
    _ model: Llama, of checkpoint: Checkpoint, _ config: JSON?, _ dtype: DType?, to folder: String,
    threads: Int
  ) throws(PeftoolError) -> ChangeLoss? {
    let source = TrainedSource(checkpoint, model)
    let tensors = zip(source.tensors, checkpoint.tensors).map { info, original in
      Conversion.Tensor(
        name: info.name, stored: StoredTensor(info, in: source), dtype: dtype ?? original.dtype)
    }
    let layout = try CheckpointLayout(keeping: checkpoint, tensors.map(\.layoutItem))
    let conversion = Conversion(
      tensors: tensors,
      output: ModelOutput(to: .directory(folder), layout, inputs: [source]),
      overflow: .refused(hint: "; --dtype f32 holds it"))
    let config = dtype.map { config?.with($0) } ?? config
    try conversion.run(force: true, threads: threads, progress: { _ in }) {
      (output) throws(PeftoolError) in
      // The run has its own.
      try output.carryOtherFiles(
        of: checkpoint, config: config, except: [TrainingLog.name, card])
    }
    let rounded = tensors.filter { source.isComputed($0.stored.info) && !$0.isCopy }
    guard !rounded.isEmpty else { return nil }
    return try ChangeLoss(
      of: rounded.map(\.stored), base: checkpoint, written: Checkpoint(opening: folder),
      threads: threads)
  }
}
