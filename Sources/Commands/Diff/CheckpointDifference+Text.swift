import Checkpoints
import Files
import JSON
import Reports
import Tensors

extension CheckpointDifference {
  /// What a terminal shows of tensors that differ; a pipe gets all.
  static let shownTensorCount = 20

  /// The differences for a reader, the verdict last.
  ///
  /// With a width for the table only the worst tensors are in it.
  func text(width: Int, tableWidth: Int?) -> String {
    var text = details(tableWidth: tableWidth)
    if let note { text += note.folded(width: width).joined(separator: "\n") + "\n" }
    return text + summary.folded(width: width).joined(separator: "\n") + "\n"
  }

  /// All but the verdict.
  func details(tableWidth: Int?) -> String {
    let limit = tableWidth == nil ? Int.max : Self.shownTensorCount
    var text = ""
    let shown = differing.prefix(limit)
    if !shown.isEmpty {
      let names = TensorColumn(
        isAdapter: left.isAdapter && right.isAdapter, tableWidth: tableWidth)
      text += table(names, Array(shown)).text(width: tableWidth)
      if differing.count > shown.count {
        text += "… and \((differing.count - shown.count).text(of: "tensor")) less different\n"
      }
      text += "\n"
    }
    text += Self.list("only in A", onlyInLeft.map(\.printable), limit)
    text += Self.list("only in B", onlyInRight.map(\.printable), limit)
    text += Self.list("other shape or dtype", incomparable.map(\.mismatch), limit)
    text += Self.list(
      "settings in adapter_config.json",
      settings.map { "\($0.key): \($0.left.summary) in A, \($0.right.summary) in B" }, limit)
    for change in dtypeChanges {
      text +=
        "dtypes: \(change.left.rawValue) in A, \(change.right.rawValue) in B: "
        + "\(change.count.text(of: "tensor"))\n"
    }
    for (name, embedding, isAbsentInLeft) in tied {
      text +=
        "tied: \(name.printable) is not stored in \(isAbsentInLeft ? "A" : "B"), "
        + "compared with its \(embedding.printable)\n"
    }
    return text
  }

  private func table(
    _ names: TensorColumn, _ rows: [(pair: TensorPair, difference: TensorDifference)]
  ) -> Table {
    let hasNonfinite = rows.contains { $0.difference.nonfiniteCount > 0 }
    var table = Table(
      [names.column]
        + ["max abs", "relative", "cosine", "differ"].map { .init($0, .right) }
        + (hasNonfinite ? [.init("NaN/inf", .right)] : []))
    for (pair, difference) in rows {
      table.append(
        [
          names.text(pair.name), difference.largest.measureText, difference.relative.measureText,
          difference.cosine.map { $0.fixed(6) } ?? "-", difference.differingCount.countText,
        ] + (hasNonfinite ? [difference.nonfiniteCount.countText] : []))
    }
    return table
  }

  /// Lines below a title, of which a terminal shows some.
  static func list(_ title: String, _ lines: [String], _ limit: Int) -> String {
    guard !lines.isEmpty else { return "" }
    let rest = lines.count > limit ? ["… and \(lines.count - limit) more"] : []
    return "\(title):\n" + (lines.prefix(limit) + rest).map { "  \($0)\n" }.joined() + "\n"
  }

  /// The verdict and its reasons.
  private var summary: String {
    let comparedText = (equalCount + differing.count).text(of: "tensor")
    switch verdict {
    case .identical:
      return "identical: \(comparedText)"
        + (dtypeChanges.isEmpty ? "" : "; dtypes differ, values do not")
    case .withinTolerance:
      return "within tolerance: \(differing.count.groupedText) of \(comparedText) differ"
        + largestText
    case .different:
      return "different: " + reasons(comparedText).joined(separator: ", ")
    }
  }

  private func reasons(_ comparedText: String) -> [String] {
    var reasons: [String] = []
    let intolerable = intolerableTensorCount
    if intolerable > 0 {
      reasons.append(
        "\(intolerable.groupedText) of \(comparedText) differ"
          + (tolerance == DiffTolerance() ? "" : " beyond the tolerance") + largestText)
    } else if equalCount + differing.count > 0 {
      reasons.append("\(comparedText) \(differing.isEmpty ? "equal" : "within tolerance")")
    }
    for (count, what) in [
      (onlyInLeft.count, "only in A"), (onlyInRight.count, "only in B"),
      (incomparable.count, "of other shape or dtype"),
    ] where count > 0 {
      reasons.append("\(count.groupedText) \(what)")
    }
    if !settings.isEmpty { reasons.append("settings differ") }
    return reasons
  }

  private var largestText: String {
    let worst = differing.max { $0.difference.largest < $1.difference.largest }
    guard let worst else { return "" }
    let nonfinite = differing.reduce(0) { $0 + $1.difference.nonfiniteCount }
    return ", by \(worst.difference.largest.measureText) at most (\(worst.pair.name.printable))"
      + (nonfinite > 0 ? ", \(nonfinite.text(of: "element")) NaN or infinite" : "")
  }
}

extension TensorPair {
  /// Why it is not compared.
  fileprivate var mismatch: String {
    left.shape == right.shape
      ? "\(name.printable): \(left.dtype.rawValue) in A, \(right.dtype.rawValue) in B"
      : "\(name.printable): \(left.shape.shapeText) in A, \(right.shape.shapeText) in B"
  }
}

extension CheckpointDifference {
  /// The differences as `--json` prints them.
  var report: JSON {
    let strings: ([String]) -> JSON = { .array($0.map { .string($0) }) }
    return .object([
      .init("verdict", .string(verdict.rawValue)),
      .init("comparison", .string("tensors")),
      .init("notes", .array(note.map { [.string($0)] } ?? [])),
      .init("a", left.summaryReport),
      .init("b", right.summaryReport),
      .init("atol", .number(tolerance.absolute)),
      .init("rtol", .number(tolerance.relative)),
      .init("equal", .number(equalCount)),
      .init("onlyInA", strings(onlyInLeft)),
      .init("onlyInB", strings(onlyInRight)),
      .init(
        "tied",
        .array(
          tied.map {
            .object([
              .init("tensor", .string($0.name)), .init("embedding", .string($0.embedding)),
              .init("absentIn", .string($0.isAbsentInLeft ? "a" : "b")),
            ])
          })),
      .init("incomparable", .array(incomparable.map { .object($0.sides) })),
      .init(
        "settings",
        .array(
          settings.map {
            .object([.init("key", .string($0.key)), .init("a", $0.left), .init("b", $0.right)])
          })),
      .init("differing", .array(differing.map { .object($0.pair.sides + $0.difference.figures) })),
    ])
  }
}

extension Checkpoint {
  /// A side of a comparison as `--json` prints it.
  var summaryReport: JSON {
    .object([
      .init("path", .string(path)),
      .init("tensors", .number(tensors.count)),
      .init("parameters", .number(parameterCount)),
    ])
  }
}

extension TensorPair {
  fileprivate var sides: [JSON.Member] {
    func side(_ tensor: TensorInfo) -> JSON {
      .object([
        .init("dtype", .string(tensor.dtype.rawValue)),
        .init("shape", .array(tensor.shape.map { .number($0) })),
      ])
    }
    return [.init("tensor", .string(name)), .init("a", side(left)), .init("b", side(right))]
  }
}

extension TensorDifference {
  fileprivate var figures: [JSON.Member] {
    [
      .init("maxAbs", .number(largest)),
      .init("relative", .number(relative)),
      .init("cosine", cosine.map { .number($0) } ?? .null),
      .init("differing", .number(differingCount)),
      .init("beyondTolerance", .number(intolerableCount)),
      .init("nonfinite", .number(nonfiniteCount)),
    ]
  }
}
