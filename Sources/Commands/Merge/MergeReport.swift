import Adapters
import Checkpoints
import Files
import JSON
import Reports
import Tensors

/// What a merge has done, in words and as JSON.
struct MergeReport {
  let plan: MergePlan
  let quantized: QuantizedMerge
  /// How the merged model has been quantized; nil where it has not.
  let quantization: QuantizePlan?
  /// What that has lost of the change; nil where it was not asked for.
  let loss: ChangeLoss?
  let summary: Merge.Summary
  let output: String
  let seconds: Double
  /// Whether it was written as a directory.
  let isDirectory: Bool

  private var isOfOffsets: Bool { if case .offsets = quantized { true } else { false } }

  /// The summary for a person.
  func text(width: Int) -> String {
    var facts = Facts()
    facts.append("base", plan.base.checkpoint.path.printable)
    for (adapter, weight) in zip(plan.adapters, plan.options.weights) {
      let factor = weight == 1 ? "" : ", weight \(weight.measureText)"
      facts.append("adapter", "\(adapter.path.printable) (\(method(of: adapter))\(factor))")
    }
    if let text = quantized.text { facts.append("quantization", text) }
    if let loss {
      facts.append(
        "lost", "\((100 * loss.value).measureText) % of the change, by quantizing it again")
    }
    if let rounding = summary.roundingLoss {
      let dtypes = Set(plan.tensors.filter(\.isMeasured).map(\.dtype.rawValue)).sorted()
      facts.append(
        "lost",
        "\((100 * rounding).measureText) % of the change by rounding "
          + (isOfOffsets
            ? "offsets"
            : "to \(dtypes.joined(separator: ", ")); --dtype F32 keeps it"))
    }
    facts.append(
      "tensors",
      "\(summary.changedCount.groupedText) merged, "
        + "\((summary.tensorCount - summary.changedCount).groupedText) carried along")
    if let largest = summary.largestChange {
      facts.append(
        "largest change", "\(largest.value.measureText) of the norm, in \(largest.tensor.printable)"
      )
    }
    if summary.nonfiniteCount > 0 {
      facts.append("NaN or infinite", summary.nonfiniteCount.text(of: "element"))
    }
    for note in notes { facts.append("note", note) }
    facts.append(
      "written",
      "\(output == "-" ? "standard output" : output.printable): \(summary.byteCount.byteText) in "
        + "\(seconds.durationText) (\((Double(summary.byteCount) / seconds).rateText))")
    return facts.text(width: width)
  }

  /// The summary for a program; `Formats/json-output.md` describes it.
  var json: JSON {
    let adapters = zip(plan.adapters, plan.options.weights).map { adapter, weight in
      JSON.object([
        .init("path", .string(adapter.path)), .init("method", .string(method(of: adapter))),
        .init("weight", .number(weight)),
      ])
    }
    let largest = summary.largestChange.map {
      JSON.object([.init("tensor", .string($0.tensor)), .init("value", .number($0.value))])
    }
    return .object([
      .init("output", .string(output)),
      .init("base", .string(plan.base.checkpoint.path)),
      .init("adapters", .array(adapters)),
      .init("quantization", .string(quantized.name)),
      .init("rounding", .string(plan.options.rounding.rawValue)),
      .init(
        "tensors",
        .object([
          .init("total", .number(summary.tensorCount)),
          .init("changed", .number(summary.changedCount)),
          .init("copied", .number(summary.tensorCount - summary.changedCount)),
        ])),
      .init("largestRelativeChange", largest ?? .null),
      .init("roundingLoss", summary.roundingLoss.map { .number($0) } ?? .null),
      .init("requantizationLoss", loss.map { .number($0.value) } ?? .null),
      .init("nonfinite", .number(summary.nonfiniteCount)),
      .init("bytes", .number(summary.byteCount)),
      .init("seconds", .number(seconds)),
      .init("notes", .array(notes.map(JSON.string))),
    ])
  }

  /// What the user should know, and what is left to do where no configuration is written.
  private var notes: [String] {
    // Both tell of the other weights in the folder.
    let known = plan.notes + (quantized.note.map { [$0] } ?? [])
    let notes = known + (quantization?.notes.filter { !known.contains($0) } ?? [])
    guard !isDirectory else { return notes }
    var edits = plan.configSettings.map { "set \($0.key) to \($0.value.text())" }
    if case .dequantized(let type, _) = quantized {
      edits.append("remove quantization_config" + (type == .int4 ? " (of MLX, quantization)" : ""))
    }
    guard !edits.isEmpty else { return notes }
    return notes + [
      "no config.json is written with a single file: in the model's, "
        + edits.joined(separator: " and ")
    ]
  }

  private func method(of adapter: Adapter) -> String {
    let configuration = adapter.configuration
    if configuration.usesDoRA { return "DoRA" }
    if configuration.pooledGroupSize != nil { return "QA-LoRA" }
    return configuration.usesRSLoRA ? "rsLoRA" : configuration.method.name
  }
}
