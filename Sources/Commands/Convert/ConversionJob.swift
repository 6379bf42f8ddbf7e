import Checkpoints
import Files
import JSON
import Reports
import Tensors

/// A checkpoint written in safetensors: the tensors, and what lies beside them.
struct ConversionJob: Sendable {
  let conversion: Conversion
  let companions: Companions
  /// What the user should know.
  let notes: [String]

  /// What lies beside the tensors in a directory.
  enum Companions: Sendable {
    /// The other files of the checkpoint, with another `config.json` where there is one.
    case carried(from: Checkpoint, config: JSON?)
    /// Files of their own.
    case written([(name: String, json: JSON)])

    /// Writes them.
    ///
    /// - Throws: as `StagedOutput`.
    func write(to folder: inout StagedOutput) throws(PeftoolError) {
      switch self {
      case .carried(let checkpoint, let config):
        try folder.carryOtherFiles(of: checkpoint, config: config)
      case .written(let files):
        for file in files { try folder.write(file.json, to: file.name) }
      }
    }
  }

  private static let shardByteCount = 5_000_000_000

  /// Plans it; nothing is read but headers and configurations.
  ///
  /// - Parameter given: what the user should know of the checkpoint.
  /// - Throws: as `CheckpointSelection` and `GGUFImport`.
  init(
    _ checkpoint: Checkpoint, _ options: CheckpointSelection.Options,
    to destination: ModelOutput.Destination, shardByteCount: Int?,
    overflow: Conversion.Overflow, notes given: [String] = []
  ) throws(PeftoolError) {
    let tensors: [Conversion.Tensor]
    if checkpoint.isAdapter, shardByteCount != nil {
      throw PeftoolError(
        .unsupported, "is an adapter, and --shard-size is for models", path: checkpoint.path)
    }
    if checkpoint.kind == .gguf {
      guard options.keepsAll else {
        throw PeftoolError(
          .unsupported,
          "is a GGUF model, of which a whole model is made; --include, --exclude and --rename are "
            + "for a second step", path: checkpoint.path)
      }
      let model = try GGUFImport(
        checkpoint, dtype: options.dtype, hasCompanions: destination.isDirectory)
      tensors = model.tensors
      companions = .written(model.companions)
      notes =
        given + model.notes
        + (destination.isDirectory
          ? [] : ["config.json and the tokenizer's files are written with a directory only"])
    } else {
      let selection = try CheckpointSelection(checkpoint, options)
      tensors = selection.tensors
      companions = .carried(from: checkpoint, config: selection.config)
      var notes = given + selection.notes
      if !destination.isDirectory, selection.config != nil, let dtype = options.dtype {
        notes.append(
          "no config.json is written with a single file: in the model's, set dtype to "
            + "\"\(dtype.torchName ?? dtype.rawValue)\"")
      }
      self.notes = notes
    }
    let layout: CheckpointLayout
    do throws(PeftoolError) {
      layout = try Self.layout(
        of: checkpoint, tensors.map(\.layoutItem), to: destination,
        keepsFiles: options.keepsAll && checkpoint.kind != .gguf, shardByteCount: shardByteCount)
    } catch {
      throw error.at(path: checkpoint.path)
    }
    conversion = Conversion(
      tensors: tensors,
      output: ModelOutput(to: destination, layout, inputs: [checkpoint.source]),
      overflow: overflow)
  }

  private static func layout(
    of checkpoint: Checkpoint, _ items: [CheckpointLayout.Item],
    to destination: ModelOutput.Destination, keepsFiles: Bool, shardByteCount: Int?
  ) throws(PeftoolError) -> CheckpointLayout {
    guard case .directory = destination, !checkpoint.isAdapter else {
      return keepsFiles && checkpoint.kind == .file
        ? try CheckpointLayout(keeping: checkpoint, items)
        : try CheckpointLayout(single: checkpoint, items)
    }
    guard keepsFiles, shardByteCount == nil else {
      return try CheckpointLayout(
        sharding: checkpoint, items, maximumByteCount: shardByteCount ?? Self.shardByteCount)
    }
    return try CheckpointLayout(keeping: checkpoint, items)
  }
}

extension ConversionJob: ConvertJob {
  var byteCount: Int { conversion.byteCount }

  func run(
    force: Bool, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> ConvertSummary {
    try conversion.run(
      force: force, threads: threads, progress: progress, companions: companions.write)
    let count = conversion.tensors.count
    let convertedCount = conversion.tensors.count { !$0.isCopy }
    let dtypes = Set(conversion.tensors.map(\.dtype).filter(\.isComputable))
    let dtype = dtypes.count == 1 ? dtypes.first : nil
    return ConvertSummary(
      facts: [
        (
          "tensors",
          count.groupedText + (dtype.map { ", as \($0.rawValue)" } ?? "")
            + (convertedCount == 0 ? "" : "; \(convertedCount.groupedText) converted")
        )
      ],
      members: [
        .init("tensors", .number(count)), .init("converted", .number(convertedCount)),
        .init("dtype", dtype.map { .string($0.rawValue) } ?? .null),
      ], byteCount: byteCount, notes: notes)
  }
}
