import Adapters
import Files
import JSON
import Reports

/// What an adapter's updates are, as `inspect --stats` shows it.
struct AdapterDeltas {
  /// Whether the updates are of DoRA.
  let usesDoRA: Bool
  /// The figures of the modules, in the order of their names, numbers by their value.
  let modules: [DeltaStatistics]

  init(_ statistics: AdapterStatistics, threads: Int, progress: ProgressLine) throws(PeftoolError) {
    usesDoRA = statistics.usesDoRA
    let found = try statistics.run(threads: threads) { progress.advance(by: $0) }
    modules = found.map { (key: NumberedName($0.path).sortKey, module: $0) }
      .sorted { $0.key.lexicographicallyPrecedes($1.key) }.map(\.module)
  }

  private var hasBase: Bool { modules.contains { $0.weightNorm != nil } }

  /// All updates in a sentence.
  var sentence: String {
    func share(_ norm: Double) -> String {
      modules.weightNorm.map { $0 > 0 ? ", \((norm / $0).percentText) of the weights'" : "" } ?? ""
    }
    var text = modules.count.text(of: "module")
    if let only = modules.first, modules.count == 1 { text += " (\(only.path.printable))" }
    text += ": norm \(modules.norm.measureText)"
    text += usesDoRA ? " (s·B·A alone, without the magnitudes)" : ""
    text += share(modules.norm)
    if let change = modules.changeNorm {
      text += "; of the change W' - W \(change.measureText)\(share(change))"
    }
    return text
  }

  /// The singular values that the table has a column for.
  private static let shownValueCount = 3

  /// A line for each module.
  func table() -> Table {
    let shares = hasBase ? [Table.Column("of base", .right)] : []
    let changes =
      usesDoRA && hasBase ? [Table.Column("change", .right), .init("of base", .right)] : []
    var table = Table(
      [
        Table.Column("module", isShortened: true), .init("rank", .right), .init("norm", .right),
      ] + shares + changes
        + [.init("effective", .right), .init("stable", .right), .init("largest σ")])
    for module in modules {
      var cells = [module.path.printable, "\(module.rank)", module.norm.measureText]
      if !shares.isEmpty { cells.append(module.share?.percentText ?? "-") }
      if !changes.isEmpty {
        cells.append(module.changeNorm?.measureText ?? "-")
        cells.append(module.changeShare?.percentText ?? "-")
      }
      cells.append(module.effectiveRank.fixed(2))
      cells.append(module.stableRank.fixed(2))
      cells.append(
        module.singularValues.prefix(Self.shownValueCount).map(\.measureText)
          .joined(separator: " "))
      table.append(cells)
    }
    return table
  }

  /// The figures as `--json` prints them.
  var report: JSON {
    .object([
      .init("usesDoRA", .bool(usesDoRA)),
      .init("norm", .number(modules.norm)),
      .init("weightNorm", Self.number(modules.weightNorm)),
      .init("changeNorm", Self.number(modules.changeNorm)),
      .init("modules", .array(modules.map(Self.report))),
    ])
  }

  private static func report(_ module: DeltaStatistics) -> JSON {
    let members: [JSON.Member] = [
      .init("path", .string(module.path)),
      .init("rank", .number(module.rank)),
      .init("norm", .number(module.norm)),
      .init("effectiveRank", .number(module.effectiveRank)),
      .init("stableRank", .number(module.stableRank)),
      .init("singularValues", .array(module.singularValues.map { .number($0) })),
      .init("weightNorm", number(module.weightNorm)),
      .init("share", number(module.share)),
      .init("changeNorm", number(module.changeNorm)),
      .init("changeShare", number(module.changeShare)),
    ]
    return .object(members)
  }

  private static func number(_ value: Double?) -> JSON { value.map { .number($0) } ?? .null }
}
