import Files
import JSON
import Reports
import Tensors

/// A checkpoint packed into one file.
struct PackingJob: ConvertJob {
  let packing: Packing
  /// The base of differences, as the user named it.
  let base: String?
  /// Where the file goes.
  let path: String

  var byteCount: Int { packing.byteCount }

  func run(
    force: Bool, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> ConvertSummary {
    let summary = try packing.run(
      to: path, isForced: force, threads: threads, progress: progress)
    var facts: [(name: String, text: String)] = []
    if let base {
      facts.append(
        (
          "base",
          "\(base.printable): \(packing.differenceCount.groupedText) of "
            + "\(packing.tensorCount.text(of: "tensor")) packed as differences"
        ))
    }
    facts.append(("tensors", packing.tensorCount.groupedText))
    for share in summary.shares {
      facts.append(
        (
          share.dtype?.rawValue ?? "other files",
          Self.sizes(share.byteCount, share.packedByteCount)
        ))
    }
    facts.append(("packed", Self.sizes(summary.byteCount, summary.packedByteCount)))
    return ConvertSummary(
      facts: facts,
      members: [
        .init("base", base.map(JSON.string) ?? .null),
        .init("tensors", .number(packing.tensorCount)),
        .init("differences", .number(packing.differenceCount)),
        .init("files", .number(packing.fileCount)),
        .init("inputBytes", .number(summary.byteCount)),
        .init("parts", .array(summary.shares.map(Self.json))),
      ], byteCount: summary.packedByteCount, notes: packing.notes)
  }

  private static func sizes(_ before: Int, _ after: Int) -> String {
    "\(before.byteText) to \(after.byteText) (\((Double(after) / Double(before)).percentText))"
  }

  private static func json(_ share: Packing.Share) -> JSON {
    .object([
      .init("dtype", share.dtype.map { .string($0.rawValue) } ?? .null),
      .init("inputBytes", .number(share.byteCount)),
      .init("bytes", .number(share.packedByteCount)),
    ])
  }
}

/// A packed file made the files again that it was packed from.
struct UnpackingJob: ConvertJob {
  let unpacking: Unpacking

  var byteCount: Int { unpacking.workByteCount }

  func run(
    force: Bool, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> ConvertSummary {
    try unpacking.run(isForced: force, threads: threads, progress: progress)
    let base = unpacking.basePath
    var facts: [(name: String, text: String)] = []
    if let base { facts.append(("base", base.printable)) }
    facts.append(("tensors", unpacking.tensorCount.groupedText))
    facts.append(("files", unpacking.names.map(\.printable).joined(separator: ", ")))
    return ConvertSummary(
      facts: facts,
      members: [
        .init("base", base.map(JSON.string) ?? .null),
        .init("tensors", .number(unpacking.tensorCount)),
        .init("files", .number(unpacking.names.count)),
      ], byteCount: unpacking.byteCount, notes: unpacking.notes)
  }
}
