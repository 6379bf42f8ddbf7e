import Adapters
import Files
import JSON
import Reports
import Tensors

/// What a verb of arithmetic has done.
struct ArithmeticReport {
  let output: String
  let inputs: [ArithmeticInput]
  let method: (name: String, summary: String)
  let results: [ModuleResult]
  /// Whether a table tells why each module has its rank.
  let showsRanks: Bool
  /// The bytes of the adapters' files of tensors, and of the new one.
  let inputByteCount: Int
  let byteCount: Int
  /// The dtypes of the new adapter's tensors, and of those that were read.
  let dtypes: Set<DType>
  let dtypesBefore: Set<DType>
  let seconds: Double
  let notes: [String]
}

extension ArithmeticReport {
  private var kept: [ModuleResult] { results.filter { $0.rank > 0 } }
  private var dropped: [ModuleResult] { results.filter { $0.rank == 0 } }
  private var keptEnergy: Double? { ModuleResult.keptEnergy(of: results) }

  /// The summary for a person.
  func text(width: Int) -> String {
    var facts = Facts()
    for input in inputs { facts.append(input.role, input.text) }
    facts.append("method", "\(method.name): \(method.summary)")
    facts.append("modules", modulesText)
    facts.append("change", changeText)
    facts.append("rank", rankText)
    facts.append("parameters", parametersText)
    facts.append("entries", entriesText)
    facts.append("kept energy", keptEnergyText)
    facts.append("dtype", dtypeText)
    facts.append("bytes", bytesText)
    for note in allNotes { facts.append("note", note) }
    facts.append(
      "written", "\(output.printable): \(byteCount.byteText) in \(seconds.durationText)")
    let tables = [showsRanks ? rankTable : nil, overlapTable].compactMap(\.self)
    return facts.text(width: width) + tables.map { "\n" + $0.text(width: width) }.joined()
  }

  /// By module how near the two weights are, and what is kept; nil where nothing was moved.
  private var overlapTable: Table? {
    let overlaps = results.compactMap { result in result.overlap.map { (result, $0) } }
    guard let (_, first) = overlaps.first else { return nil }
    let isAligned = first.alignment != nil
    var table = Table(
      [
        .init("module", isShortened: true), .init("overlap out", .right), .init("in", .right),
      ] + (isAligned ? [.init("aligned", .right)] : []) + [.init("kept", .right)])
    for (result, overlap) in overlaps {
      table.append(
        [result.path.printable, overlap.outputs.percentText, overlap.inputs.percentText]
          + (overlap.alignment.map { [$0.percentText] } ?? [])
          + [result.keptEnergy?.percentText ?? "-"])
    }
    return table
  }

  /// By module the rank, and what one more or less would have kept.
  private var rankTable: Table {
    var table = Table([
      .init("module", isShortened: true), .init("rank", .right), .init("parameters", .right),
      .init("kept", .right), .init("one less", .right), .init("one more", .right),
      .init("effective", .right),
    ])
    func share(_ value: Double?) -> String { value?.percentText ?? "-" }
    for result in kept {
      table.append([
        result.path.printable, "\(result.rank)",
        result.parameterCount.map { $0.groupedText } ?? "-", share(result.keptEnergy),
        share(result.keptWithOneLess), share(result.keptWithOneMore),
        result.spectrum?.effectiveRank.map { $0.measureText } ?? "-",
      ])
    }
    return table
  }

  /// The notes, and where there was nothing.
  private var allNotes: [String] {
    let zeros = results.filter(\.wasZero)
    guard let first = zeros.first, inputs.allSatisfy({ $0.role == "adapter" }) else { return notes }
    let what = inputs.count > 1 ? "the sum is zero" : "the change is zero"
    return notes + [
      zeros.count == results.count
        ? what
        : "\(what) in \(zeros.count.groupedText) of \(results.count.groupedText) modules: "
          + first.path.printable + (zeros.count > 1 ? " and others" : "")
    ]
  }

  /// How large the changes are beside their weights; nil where these were not looked at.
  private var changeText: String? {
    let shares = results.compactMap { result in result.share.map { (result.path, $0) } }
    guard let share = ModuleResult.share(of: results), let most = shares.max(by: { $0.1 < $1.1 })
    else { return nil }
    return "\(share.percentText) of the weights' norm, the most in \(most.0.printable): "
      + most.1.percentText
  }

  /// What is kept of all, and the least; nil where that is all but for rounding.
  private var keptEnergyText: String? {
    let shares = results.compactMap { result in result.keptEnergy.map { (result.path, $0) } }
    guard let worst = shares.min(by: { $0.1 < $1.1 }), worst.1 < 1 - 1e-9, let keptEnergy else {
      return nil
    }
    return "\(keptEnergy.percentText) of all, the least in \(worst.0.printable): "
      + worst.1.percentText
  }

  private var modulesText: String {
    guard let longest = dropped.max(by: { $0.energyBefore < $1.energyBefore }) else {
      return results.count.groupedText
    }
    return "\(kept.count.groupedText) of \(results.count.groupedText); of those dropped "
      + "\(longest.path.printable) has the largest norm, "
      + longest.energyBefore.squareRoot().measureText
  }

  private var rankText: String? {
    guard !kept.allSatisfy(\.isSparse) else { return nil }
    let after = kept.map(\.rank).countsText { "\($0)" }
    let before = kept.map(\.rankBefore).countsText { "\($0)" }
    return after == before ? after : after.map { "\($0), before \(before ?? "0")" }
  }

  /// The parameters of A and B, where they were told of.
  private var parametersText: String? {
    guard showsRanks else { return nil }
    return kept.compactMap(\.parameterCount).reduce(0, +).groupedText + " in A and B"
  }

  private var entriesText: String? {
    let entries = results.compactMap(\.entries)
    guard !entries.isEmpty else { return nil }
    let kept = entries.reduce(0) { $0 + $1.kept }
    return "\(kept.groupedText) of \(entries.reduce(0) { $0 + $1.total }.groupedText) kept"
  }

  /// The dtypes, and where those that were read were others, what these were.
  private var dtypeText: String {
    let names: (Set<DType>) -> String = { $0.map(\.rawValue).sorted().joined(separator: ", ") }
    guard !dtypesBefore.isEmpty, dtypes != dtypesBefore else { return names(dtypes) }
    var text = "\(names(dtypes)), before \(names(dtypesBefore))"
    if dtypes == [.f32], dtypesBefore.count == 1, let before = dtypesBefore.first,
      before == .bf16 || before == .f16
    {
      text += "; --dtype \(before.rawValue.lowercased()) writes half the bytes"
    }
    return text
  }

  private var bytesText: String {
    let share = inputByteCount > 0 ? Double(byteCount) / Double(inputByteCount) : 1
    return "\(inputByteCount.byteText) before, \(byteCount.byteText) now: \(share.percentText)"
  }

  /// The summary for a program; `Formats/json-output.md` describes it.
  var json: JSON {
    .object([
      .init("output", .string(output)),
      .init("inputs", .array(inputs.map(\.json))),
      .init("method", .string(method.name)),
      .init("modules", .array(results.map(\.json))),
      .init("share", .number(ModuleResult.share(of: results))),
      .init("keptEnergy", .number(keptEnergy)),
      .init("dtypes", .array(dtypes.map(\.rawValue).sorted().map(JSON.string))),
      .init("inputBytes", .number(inputByteCount)),
      .init("bytes", .number(byteCount)), .init("seconds", .number(seconds)),
      .init("notes", .array(allNotes.map(JSON.string))),
    ])
  }
}

extension ModuleResult {
  /// What a program is told of it.
  var json: JSON {
    .object([
      .init("path", .string(path)), .init("rankBefore", .number(rankBefore)),
      .init("rank", .number(rank)), .init("normBefore", .number(energyBefore.squareRoot())),
      .init("norm", .number(energy.squareRoot())), .init("weightNorm", .number(weightNorm)),
      .init("share", .number(share)), .init("keptEnergy", .number(keptEnergy)),
      .init("keptWithOneLess", .number(keptWithOneLess)),
      .init("keptWithOneMore", .number(keptWithOneMore)),
      .init("effectiveRank", .number(spectrum?.effectiveRank)),
      .init("parameters", .number(parameterCount)),
      .init("overlapOut", .number(overlap?.outputs)), .init("overlapIn", .number(overlap?.inputs)),
      .init("alignment", .number(overlap?.alignment)),
      .init("entries", entries.map { .number($0.total) } ?? .null),
      .init("keptEntries", entries.map { .number($0.kept) } ?? .null),
    ])
  }
}
