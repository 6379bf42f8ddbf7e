import Adapters
import Files
import JSON
import Reports

extension AdapterDifference {
  /// The differences for a reader, the verdict last.
  ///
  /// With a width for the table only the worst modules are in it.
  func text(width: Int, tableWidth: Int?) -> String {
    let limit = tableWidth == nil ? Int.max : CheckpointDifference.shownTensorCount
    var text = ""
    let shown = Array(differing.prefix(limit))
    if !shown.isEmpty {
      text += table(shown).text(width: tableWidth)
      if differing.count > shown.count {
        text += "… and \((differing.count - shown.count).text(of: "module")) less different\n"
      }
      text += "\n"
    }
    let list = CheckpointDifference.list
    text += list("modules only in A", comparison.onlyInLeft.map(\.printable), limit)
    text += list("modules only in B", comparison.onlyInRight.map(\.printable), limit)
    text += list(
      "modules of other kinds or shapes",
      comparison.misfits.map { "\($0.path.printable): \($0.left) in A, \($0.right) in B" }, limit)
    text += others.details(tableWidth: tableWidth)
    var facts = Facts()
    if isOfTwoMethods {
      facts.append(
        "methods:", "\(left.adapter.method) in A, \(right.adapter.method) in B")
    }
    for note in left.adapter.notes { facts.append("note on A:", note) }
    for note in right.adapter.notes { facts.append("note on B:", note) }
    if !differing.isEmpty { facts.append("all modules:", wholeText) }
    text += facts.text(width: width)
    return text + summary.folded(width: width).joined(separator: "\n") + "\n"
  }

  private var wholeText: String {
    let whole = WholeComparison(of: modules)
    let parts: [(String, String?)] = [
      ("cosine", whole.cosine?.fixed(6)), ("norm A / B", whole.normRatio?.measureText),
      ("relative", whole.relative?.measureText),
    ]
    return parts.map { "\($0.0) \($0.1 ?? "-")" }.joined(separator: ", ")
  }

  private func table(_ rows: [DeltaComparison]) -> Table {
    let hasMagnitudes = rows.contains { $0.magnitude != nil }
    let hasBiases = rows.contains { $0.bias != nil }
    var table = Table(
      [Table.Column("module", isShortened: true)]
        + ["cosine", "norm A / B", "relative", "out", "in"].map { .init($0, .right) }
        + (hasMagnitudes ? [.init("magnitude", .right)] : [])
        + (hasBiases ? [.init("bias", .right)] : []))
    let number: (Double?) -> String = { $0?.measureText ?? "-" }
    for row in rows {
      table.append(
        [
          row.path.printable, row.cosine?.fixed(6) ?? "-", number(row.normRatio),
          number(row.relative), row.outputOverlap?.fixed(4) ?? "-",
          row.inputOverlap?.fixed(4) ?? "-",
        ] + (hasMagnitudes ? [number(row.magnitude?.relative)] : [])
          + (hasBiases ? [number(row.bias?.relative)] : []))
    }
    return table
  }

  /// The verdict and its reasons.
  private var summary: String {
    let updates = modules.count.text(of: comparison.isOfWholeChanges ? "change" : "update")
    let tensorCount = others.equalCount + others.differing.count
    let tensors = tensorCount > 0 ? [tensorCount.text(of: "other tensor")] : []
    switch verdict {
    case .identical:
      return "identical: " + ([updates] + tensors).joined(separator: ", ")
    case .withinTolerance:
      var parts = ["\(differing.count.groupedText) of \(updates) differ" + worstText]
      if tensorCount > 0 {
        parts.append("\(others.differing.count.groupedText) of \(tensors[0]) differ")
      }
      return "within tolerance: " + parts.joined(separator: ", ")
    case .different:
      return "different: " + reasons(updates).joined(separator: ", ")
    }
  }

  private func reasons(_ updates: String) -> [String] {
    var reasons: [String] = []
    if intolerableCount > 0 {
      reasons.append("\(intolerableCount.groupedText) of \(updates) differ" + worstText)
    } else if !modules.isEmpty {
      reasons.append("\(updates) \(differing.isEmpty ? "equal" : "within tolerance")")
    }
    let tensors = others.onlyInLeft.count + others.onlyInRight.count + others.incomparable.count
    for (count, what) in [
      (comparison.onlyInLeft.count, "only in A"), (comparison.onlyInRight.count, "only in B"),
      (comparison.misfits.count, "of other kinds or shapes"),
      (others.intolerableTensorCount + tensors, "of the other tensors different"),
    ] where count > 0 {
      reasons.append("\(count.groupedText) \(what)")
    }
    if isOfTwoMethods { reasons.append("methods differ") }
    if hasOtherSettings { reasons.append("settings differ") }
    return reasons
  }

  private var worstText: String {
    guard let worst = modules.first(where: { ($0.relative ?? 0) > 0 }),
      let relative = worst.relative
    else { return "" }
    return ", by \(relative.measureText) of the norm at most (\(worst.path.printable))"
  }
}

extension AdapterDifference {
  /// The differences as `--json` prints them.
  var report: JSON {
    let strings: ([String]) -> JSON = { .array($0.map { .string($0) }) }
    let whole = WholeComparison(of: modules)
    var members: [JSON.Member] = [
      .init("verdict", .string(verdict.rawValue)),
      .init("comparison", .string(comparison.isOfWholeChanges ? "changes" : "updates")),
      .init("notes", strings(left.adapter.notes + right.adapter.notes)),
      .init("a", left.checkpoint.summaryReport),
      .init("b", right.checkpoint.summaryReport),
      .init("methods", strings([left.adapter.method, right.adapter.method])),
      .init("atol", .number(tolerance.absolute)),
      .init("rtol", .number(tolerance.relative)),
    ]
    members += [
      .init("equal", .number(modules.count - differing.count)),
      .init("cosine", .optional(whole.cosine)),
      .init("normRatio", .optional(whole.normRatio)),
      .init("relative", .optional(whole.relative)),
      .init("onlyInA", strings(comparison.onlyInLeft)),
      .init("onlyInB", strings(comparison.onlyInRight)),
      .init("incomparable", .array(comparison.misfits.map(misfitReport))),
      .init("modules", .array(modules.map(moduleReport))),
      .init("others", others.report),
    ]
    return .object(members)
  }

  private func misfitReport(_ misfit: (path: String, left: String, right: String)) -> JSON {
    .object([
      .init("module", .string(misfit.path)), .init("a", .string(misfit.left)),
      .init("b", .string(misfit.right)),
    ])
  }

  private func moduleReport(_ module: DeltaComparison) -> JSON {
    let vector: (DeltaComparison.VectorDifference?) -> JSON = { vector in
      vector.map {
        .object([
          .init("difference", .number($0.difference)), .init("relative", .optional($0.relative)),
        ])
      } ?? .null
    }
    func side(_ rank: Int, _ norm: Double) -> JSON {
      .object([.init("rank", .number(rank)), .init("norm", .number(norm))])
    }
    let members: [JSON.Member] = [
      .init("module", .string(module.path)),
      .init("a", side(module.ranks.left, module.norms.left)),
      .init("b", side(module.ranks.right, module.norms.right)),
      .init("cosine", .optional(module.cosine)),
      .init("normRatio", .optional(module.normRatio)),
      .init("difference", .number(module.difference)),
      .init("relative", .optional(module.relative)),
      .init("outputOverlap", .optional(module.outputOverlap)),
      .init("inputOverlap", .optional(module.inputOverlap)),
      .init("magnitude", vector(module.magnitude)),
      .init("bias", vector(module.bias)),
      .init("equal", .bool(module.isEqual)),
      .init(
        "withinTolerance", .bool(module.isEqual || module.isWithin(tolerance.ofUpdates))),
    ]
    return .object(members)
  }
}

extension JSON {
  /// A number, or null.
  fileprivate static func optional(_ value: Double?) -> JSON { value.map { .number($0) } ?? .null }
}
