import Adapters
import Checkpoints
import Files
import JSON
import Reports

/// An adapter made one of another format.
struct AdapterJob: ConvertJob {
  private let conversion: AdapterConversion
  /// Where it goes.
  private let path: String

  /// Plans it.
  ///
  /// - Parameters:
  ///   - base: the model that the adapter was made for, if it is known.
  ///   - prefix: what kohya's names of modules begin with.
  /// - Throws: as `AdapterConversion`, and what is wrong with the base.
  init(
    _ input: String, to path: String, _ format: AdapterFormat, base: String?, prefix: String?
  ) throws(PeftoolError) {
    let base = try BaseModel(at: base)
    conversion = try AdapterConversion(
      input, to: format, AdapterFormat.Hints(base: base, prefix: prefix))
    self.path = path
  }

  var byteCount: Int { conversion.byteCount }

  func run(
    force: Bool, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> ConvertSummary {
    try conversion.run(to: path, isForced: force, threads: threads, progress: progress)
    let adapter = conversion.adapter
    return ConvertSummary(
      facts: [
        ("adapter", "\(adapter.method), from \(conversion.from.name) to \(conversion.to.name)"),
        ("modules", adapter.modules.count.groupedText),
        ("rank", adapter.modules.map(\.rank).countsText { "\($0)" } ?? "none"),
        ("scaling", adapter.modules.map(\.scaling).countsText(\.measureText) ?? "none"),
      ],
      members: [
        .init("from", .string(conversion.from.rawValue)),
        .init("to", .string(conversion.to.rawValue)),
        .init("method", .string(adapter.method)),
        .init("modules", adapter.modulesReport),
      ], byteCount: byteCount, notes: conversion.notes)
  }
}

extension LowRankAdapter {
  /// The method as its paper spells it.
  var method: String { usesDoRA ? "DoRA" : "LoRA" }

  /// Path, rank and scaling of each module, for `--json`.
  var modulesReport: JSON {
    .array(
      modules.map {
        .object([
          .init("path", .string($0.path)), .init("rank", .number($0.rank)),
          .init("scaling", .number($0.scaling)),
        ])
      })
  }
}
