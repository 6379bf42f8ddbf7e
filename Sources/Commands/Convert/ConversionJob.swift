import Checkpoints
import Files
import JSON
import Reports
import Tensors

/// What `convert` does with a checkpoint: the tensors that it writes, and what lies beside them.
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
  /// - Throws: as `CheckpointSelection` and `GGUFImport`.
  init(
    _ checkpoint: Checkpoint, _ options: CheckpointSelection.Options,
    to destination: ModelOutput.Destination, shardByteCount: Int?,
    overflow: Conversion.Overflow
  ) throws(PeftoolError) {
    let tensors: [Conversion.Tensor]
    if checkpoint.kind == .gguf {
      guard options.keepsAll else {
        throw PeftoolError(
          .unsupported,
          "is a GGUF model, of which a whole model is made; --include, --exclude and --rename are "
            + "for a second step", path: checkpoint.path)
      }
      let model = try GGUFImport(checkpoint, dtype: options.dtype)
      tensors = model.tensors
      companions = .written(model.companions)
      notes = model.notes
    } else {
      let selection = try CheckpointSelection(checkpoint, options)
      tensors = selection.tensors
      companions = .carried(from: checkpoint, config: selection.config)
      notes = selection.notes
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

/// What a conversion has done, in words and as JSON.
struct ConversionReport {
  let job: ConversionJob
  let input: String
  let output: String
  let seconds: Double

  /// The dtype of all floating tensors; nil where they have several.
  private var dtype: DType? {
    let dtypes = Set(job.conversion.tensors.map(\.dtype).filter(\.isComputable))
    return dtypes.count == 1 ? dtypes.first : nil
  }

  /// The summary for a person.
  func text(width: Int) -> String {
    var facts = Facts()
    facts.append("from", input.printable)
    let convertedCount = job.conversion.tensors.count { !$0.isCopy }
    facts.append(
      "tensors",
      job.conversion.tensors.count.groupedText
        + (dtype.map { ", as \($0.rawValue)" } ?? "")
        + (convertedCount == 0 ? "" : "; \(convertedCount.groupedText) converted"))
    for note in job.notes { facts.append("note", note) }
    let byteCount = job.conversion.byteCount
    facts.append(
      "written",
      "\(output == "-" ? "standard output" : output.printable): \(byteCount.byteText) in "
        + "\(seconds.durationText) (\((Double(byteCount) / seconds).rateText))")
    return facts.text(width: width)
  }

  /// The summary for a program; `Formats/json-output.md` describes it.
  var json: JSON {
    .object([
      .init("output", .string(output)),
      .init("model", .string(input)),
      .init("tensors", .number(job.conversion.tensors.count)),
      .init("converted", .number(job.conversion.tensors.count { !$0.isCopy })),
      .init("dtype", dtype.map { .string($0.rawValue) } ?? .null),
      .init("bytes", .number(job.conversion.byteCount)),
      .init("seconds", .number(seconds)),
      .init("notes", .array(job.notes.map(JSON.string))),
    ])
  }
}
