import Adapters
import ArgumentParser
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Reports

extension AdapterFormat: ExpressibleByArgument {}

// `convert` with --to: an adapter from one format to another.
extension ConvertCommand {
  /// Converts an adapter and prints what was done.
  func convertAdapter(to format: AdapterFormat) throws {
    let start = monotonicSeconds()
    let base = try base.map { path throws(PeftoolError) in
      try BaseModel(try Checkpoint(opening: path))
    }
    let conversion = try AdapterConversion(
      path, to: format, AdapterFormat.Hints(base: base, prefix: prefix))
    let progress = ProgressLine(
      "converting", totalByteCount: conversion.byteCount, isQuiet: quiet)
    try conversion.run(
      to: output, isForced: force, threads: threads ?? availableProcessorCount
    ) { progress.advance(by: $0) }
    progress.finish()
    let seconds = monotonicSeconds() - start
    if json {
      try StandardOutput.print(report(conversion, seconds).text(indent: 2) + "\n")
    } else if !quiet {
      try StandardOutput.print(text(conversion, seconds))
    }
  }

  private func text(_ conversion: AdapterConversion, _ seconds: Double) -> String {
    let adapter = conversion.adapter
    var facts = Facts()
    facts.append(
      "adapter", "\(path.printable) (\(adapter.method), \(conversion.from.name))")
    facts.append("modules", adapter.modules.count.groupedText)
    facts.append("rank", adapter.modules.map(\.rank).countsText { "\($0)" })
    facts.append("scaling", adapter.modules.map(\.scaling).countsText(\.measureText))
    for note in conversion.notes { facts.append("note", note) }
    facts.append(
      "written",
      "\(output.printable) (\(conversion.to.name)): \(conversion.byteCount.byteText) in "
        + seconds.durationText)
    return facts.text(width: StandardOutput.width)
  }

  private func report(_ conversion: AdapterConversion, _ seconds: Double) -> JSON {
    .object([
      .init("output", .string(output)),
      .init("adapter", .string(path)),
      .init("from", .string(conversion.from.rawValue)),
      .init("to", .string(conversion.to.rawValue)),
      .init("method", .string(conversion.adapter.method)),
      .init("modules", conversion.adapter.modulesReport),
      .init("bytes", .number(conversion.byteCount)),
      .init("seconds", .number(seconds)),
      .init("notes", .array(conversion.notes.map(JSON.string))),
    ])
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
