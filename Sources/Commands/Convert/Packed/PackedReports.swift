import Checkpoints
import Files
import JSON
import Reports
import Tensors

/// What a packing has done, in words and as JSON.
struct PackingReport {
  let packing: Packing
  let summary: Packing.Summary
  let input: String
  /// The argument of `--delta-from`.
  let base: String?
  let output: String
  let seconds: Double

  /// The summary for a person.
  func text(width: Int) -> String {
    var facts = Facts()
    facts.append("from", input.printable)
    if let base {
      facts.append(
        "base",
        "\(base.printable): \(packing.differenceCount.groupedText) of "
          + "\(packing.tensorCount.text(of: "tensor")) packed as differences")
    }
    facts.append("tensors", packing.tensorCount.groupedText)
    for share in summary.shares {
      facts.append(
        share.dtype?.rawValue ?? "other files",
        Self.sizes(share.byteCount, share.packedByteCount))
    }
    for note in packing.notes { facts.append("note", note) }
    facts.append("packed", Self.sizes(summary.byteCount, summary.packedByteCount))
    facts.append(
      "written",
      "\(output.printable): \(summary.packedByteCount.byteText) in \(seconds.durationText) "
        + "(\((Double(summary.byteCount) / seconds).rateText) of the files)")
    return facts.text(width: width)
  }

  private static func sizes(_ before: Int, _ after: Int) -> String {
    "\(before.byteText) to \(after.byteText) (\((Double(after) / Double(before)).percentText))"
  }

  /// The summary for a program; `Formats/json-output.md` describes it.
  var json: JSON {
    .object([
      .init("output", .string(output)),
      .init("model", .string(input)),
      .init("base", base.map(JSON.string) ?? .null),
      .init("tensors", .number(packing.tensorCount)),
      .init("differences", .number(packing.differenceCount)),
      .init("files", .number(packing.fileCount)),
      .init("inputBytes", .number(summary.byteCount)),
      .init("bytes", .number(summary.packedByteCount)),
      .init(
        "parts",
        .array(
          summary.shares.map { share in
            .object([
              .init("dtype", share.dtype.map { .string($0.rawValue) } ?? .null),
              .init("inputBytes", .number(share.byteCount)),
              .init("bytes", .number(share.packedByteCount)),
            ])
          })),
      .init("seconds", .number(seconds)),
      .init("notes", .array(packing.notes.map(JSON.string))),
    ])
  }
}

/// What an unpacking has done, in words and as JSON.
struct UnpackingReport {
  let unpacking: Unpacking
  let input: String
  let output: String
  let seconds: Double

  /// The summary for a person.
  func text(width: Int) -> String {
    var facts = Facts()
    facts.append("from", input.printable)
    if let base = unpacking.basePath { facts.append("base", base.printable) }
    facts.append("tensors", unpacking.tensorCount.groupedText)
    facts.append("files", unpacking.names.map(\.printable).joined(separator: ", "))
    let byteCount = unpacking.byteCount
    facts.append(
      "written",
      "\(output.printable): \(byteCount.byteText) in \(seconds.durationText) "
        + "(\((Double(byteCount) / seconds).rateText))")
    return facts.text(width: width)
  }

  /// The summary for a program; `Formats/json-output.md` describes it.
  var json: JSON {
    .object([
      .init("output", .string(output)),
      .init("model", .string(input)),
      .init("base", unpacking.basePath.map(JSON.string) ?? .null),
      .init("tensors", .number(unpacking.tensorCount)),
      .init("files", .number(unpacking.names.count)),
      .init("bytes", .number(unpacking.byteCount)),
      .init("seconds", .number(seconds)),
      .init("notes", .array([])),
    ])
  }
}
