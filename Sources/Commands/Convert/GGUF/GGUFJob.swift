import Files
import JSON
import Reports
import Tensors

/// A model directory, or an adapter, written as a GGUF file.
struct GGUFJob: ConvertJob {
  let writing: GGUFWriting
  /// Where the file goes.
  let path: String

  var byteCount: Int { writing.byteCount }

  /// As what tensors are written, the most frequent first.
  private var dtypes: String {
    writing.output.tensors.map(\.dtype.rawValue).countsText { $0 } ?? "none"
  }

  func run(
    force: Bool, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> ConvertSummary {
    try writing.run(to: path, isForced: force, threads: threads, progress: progress)
    return ConvertSummary(
      facts: [("tensors", "\(writing.tensorCount.groupedText): \(dtypes)")],
      members: [
        .init("tensors", .number(writing.tensorCount)),
        .init("dtype", .string(writing.dtype.rawValue)),
      ], byteCount: byteCount, notes: writing.notes)
  }
}
