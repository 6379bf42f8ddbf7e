import Adapters
import Checkpoints
import Files
import JSON
import Reports

/// What an adapter of another format than PEFT's is.
struct ForeignAdapterFacts {
  /// The format that it has.
  let format: AdapterFormat
  /// What it holds; nil where `convert` does not take it.
  let adapter: LowRankAdapter?
  /// Why `convert` does not take it.
  let refusal: PeftoolError?

  /// Looks into a checkpoint; nil where it is none, or one of PEFT.
  ///
  /// - Throws: `io` and `damaged` of the configuration file.
  init?(_ checkpoint: Checkpoint) throws(PeftoolError) {
    guard let format = try AdapterFormat(of: checkpoint), format != .peft else { return nil }
    self.format = format
    do throws(PeftoolError) {
      adapter = try AdapterFormat.read(
        checkpoint.path, AdapterFormat.Hints(base: nil, prefix: nil)
      ).adapter
      refusal = nil
    } catch {
      (adapter, refusal) = (nil, error)
    }
  }

  /// The facts one below the other.
  func append(to facts: inout Facts) {
    facts.append("adapter", (adapter.map { "\($0.method), " } ?? "") + "of \(format.name)")
    facts.append("made for", adapter?.baseName?.printable)
    facts.append("modules", adapter?.modules.count.groupedText)
    facts.append("rank", adapter?.modules.map(\.rank).countsText { "\($0)" })
    facts.append("scaling", adapter?.modules.map(\.scaling).countsText(\.measureText))
    facts.append("note", refusal.map { "convert does not take it as it is: \($0.reason)" })
  }

  /// The facts as a JSON object.
  var report: JSON {
    .object([
      .init("format", .string(format.rawValue)),
      .init("method", adapter.map { .string($0.method) } ?? .null),
      .init("base", adapter?.baseName.map(JSON.string) ?? .null),
      .init("modules", adapter?.modulesReport ?? .array([])),
      .init("refusal", refusal.map { .string($0.reason) } ?? .null),
    ])
  }
}
