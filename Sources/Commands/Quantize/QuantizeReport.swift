import Adapters
import Checkpoints
import Files
import JSON
import Quantization
import Reports
import Tensors

/// What a quantization has done, in words and as JSON.
struct QuantizeReport {
  let plan: QuantizePlan
  let scheme: QuantizePlan.Scheme
  let summary: Quantize.Summary
  let output: String
  let type: String
  let seconds: Double

  private var inputByteCount: Int {
    plan.model.tensors.reduce(0) { $0 + $1.byteCount }
  }

  private var tensorCount: Int { plan.model.tensors.count }

  /// The summary for a person.
  func text(width: Int) -> String {
    var facts = Facts()
    facts.append("model", plan.model.path.printable)
    facts.append("type", typeText)
    facts.append(
      "tensors",
      "\(plan.weights.count.groupedText) quantized, "
        + "\((tensorCount - plan.weights.count).groupedText) left as they are")
    for note in plan.notes { facts.append("note", note) }
    let ratio = Double(summary.byteCount) / Double(max(1, inputByteCount))
    facts.append(
      "written",
      "\(output.printable): \(summary.byteCount.byteText), \(ratio.percentText) of before, in "
        + "\(seconds.durationText)")
    guard !summary.losses.isEmpty else { return facts.text(width: width) }
    let whole = QuantizationLoss(of: summary.losses)
    facts.append(
      "loss",
      "RMS \(whole.rms.measureText), largest \(whole.largest.measureText), signal to noise "
        + "\(whole.decibelText) dB, \(whole.bits.fixed(2)) bits a quantized parameter")
    return facts.text(width: width)
  }

  /// What each weight has lost, the worst first; nil without a report.
  func table(width: Int?) -> String? {
    guard !summary.losses.isEmpty else { return nil }
    var table = Table([
      .init("module", isShortened: true), .init("RMS error", .right), .init("largest", .right),
      .init("SNR, dB", .right), .init("bits", .right),
    ])
    for loss in summary.losses.byWorst {
      table.append([
        loss.module.printable, loss.rms.measureText, loss.largest.measureText, loss.decibelText,
        loss.bits.fixed(2),
      ])
    }
    return table.text(width: width)
  }

  /// The report as a page for a browser.
  var page: String {
    let whole = QuantizationLoss(of: summary.losses)
    let ratio = Double(summary.byteCount) / Double(max(1, inputByteCount))
    return LossPage(
      title: "\(plan.model.path.printable) in \(type)",
      facts: [
        ("type", typeText),
        ("modules", summary.losses.count.groupedText),
        ("RMS error", whole.rms.measureText), ("largest error", whole.largest.measureText),
        ("signal to noise", "\(whole.decibelText) dB"),
        ("bits a quantized parameter", whole.bits.fixed(2)),
        ("all files", "\(summary.byteCount.byteText), \(ratio.percentText) of before"),
      ],
      losses: summary.losses
    ).text
  }

  private var typeText: String {
    switch scheme {
    case .rows: "int8 (LLM.int8), a scale a row"
    case .groups(let scheme): scheme.text
    case .blocks(let code, let blockSize, let isNested):
      "\(code.rawValue), blocks of \(blockSize), "
        + (isNested ? "scales in 8 bits (double quantization)" : "scales in f32")
    }
  }

  /// The summary for a program; `Formats/json-output.md` describes it.
  var json: JSON {
    var blockSize = JSON.null
    var isNested = JSON.null
    if case .blocks(_, let size, let nested) = scheme {
      blockSize = .number(size)
      isNested = .bool(nested)
    }
    var groups: GroupScheme?
    if case .groups(let scheme) = scheme { groups = scheme }
    return .object([
      .init("output", .string(output)),
      .init("model", .string(plan.model.path)),
      .init("type", .string(type)),
      .init("blockSize", blockSize),
      .init("doubleQuantization", isNested),
      .init("groupSize", groups.map { .number($0.groupSize) } ?? .null),
      .init("layout", groups.map { .string($0.layout.rawValue) } ?? .null),
      .init("scaleDType", groups.map { .string($0.scaleDType.rawValue) } ?? .null),
      .init("symmetric", groups.map { .bool($0.isSymmetric) } ?? .null),
      .init(
        "tensors",
        .object([
          .init("total", .number(tensorCount)),
          .init("quantized", .number(plan.weights.count)),
          .init("left", .number(tensorCount - plan.weights.count)),
        ])),
      .init("inputBytes", .number(inputByteCount)),
      .init("bytes", .number(summary.byteCount)),
      .init("seconds", .number(seconds)),
      .init("notes", .array(plan.notes.map(JSON.string))),
      .init("report", report),
    ])
  }

  private var report: JSON {
    guard !summary.losses.isEmpty else { return .null }
    let whole = QuantizationLoss(of: summary.losses)
    return .object(
      whole.members(named: false) + [
        .init(
          "modules",
          .array(summary.losses.byWorst.map { .object($0.members(named: true)) }))
      ])
  }
}
