import Adapters
import Files
import JSON
import Reports

/// What `combine --dry-run` prints: what would be done with each module.
struct CombinationPlan {
  let modules: [Combination.PlannedModule]
  let inputs: [ArithmeticInput]
  let settings: CombinationSettings
  let layerCount: Int
  let base: String?
  let output: String?
  let notes: [String]

  init(_ combination: Combination, base: String?, output: String?) {
    modules = combination.plan
    inputs = combination.inputs
    settings = combination.settings
    layerCount = combination.layerCount
    self.base = base
    self.output = output
    notes = combination.notes
  }

  /// The bytes of all tensors, at most where ranks are.
  private var byteCount: Int { modules.reduce(0) { $0 + $1.byteCount } }
  private var isKnown: Bool { modules.allSatisfy(\.isRankKnown) }

  /// What random numbers are drawn from; nil where none are.
  private var seed: UInt64? {
    settings.method.isRandom || settings.method.isDense ? settings.seed : nil
  }

  /// The plan for a person.
  func text(width: Int) -> String {
    var facts = Facts()
    for input in inputs { facts.append(input.role, input.text) }
    facts.append("method", "\(settings.method.rawValue): \(settings.method.summary)")
    facts.append("base", base?.printable)
    facts.append("seed", seed.map { "\($0)" })
    if layerCount > 0 { facts.append("layers", layerCount.groupedText) }
    facts.append("modules", modules.count.groupedText)
    for note in notes { facts.append("note", note) }
    facts.append(
      "to write",
      (output.map { "\($0.printable): " } ?? "") + (isKnown ? "" : "at most ")
        + "\(byteCount.byteText) of tensors")
    return modules.treatedAlike.reduce(facts.text(width: width)) { text, group in
      var facts = Facts()
      facts.append("modules", group.paths.patternsText)
      facts.append("weights", group.first.weights.listText)
      if settings.method.hasDensity {
        facts.append("densities", group.first.densities.listText)
      }
      let ranks = group.first.ranks.map { rank in rank.map(String.init) ?? "-" }
      facts.append("ranks", ranks.joined(separator: ", "))
      facts.append("rank", (group.first.isRankKnown ? "" : "at most ") + "\(group.first.rank)")
      return text + "\n" + facts.text(width: width)
    }
  }

  /// The plan for a program; `Formats/json-output.md` describes it.
  var json: JSON {
    let members: [JSON.Member] = [
      .init("output", .text(output)),
      .init("inputs", .array(inputs.map(\.json))),
      .init("method", .string(settings.method.rawValue)),
      .init("base", .text(base)),
      .init("seed", seed.map { JSON.number(String($0)) } ?? .null),
      .init("layers", .number(layerCount)),
      .init("modules", .array(modules.map(\.json))),
      .init("bytes", .number(byteCount)),
      .init("isKnown", .bool(isKnown)),
      .init("notes", .array(notes.map(JSON.string))),
    ]
    return .object(members)
  }
}

extension [Combination.PlannedModule] {
  /// Modules that differ in their paths and shapes alone, in the order of the first of them.
  var treatedAlike: [(first: Combination.PlannedModule, paths: [String])] {
    var groups: [(first: Combination.PlannedModule, paths: [String])] = []
    var places: [Treatment: Int] = [:]
    for module in self {
      let treatment = Treatment(module)
      if let place = places[treatment] {
        groups[place].paths.append(module.path)
      } else {
        places[treatment] = groups.count
        groups.append((module, [module.path]))
      }
    }
    return groups
  }
}

/// What is done with a module.
private struct Treatment: Hashable {
  let weights: [Double?]
  let densities: [Double?]
  let ranks: [Int?]
  let rank: Int
  let isRankKnown: Bool

  init(_ module: Combination.PlannedModule) {
    weights = module.weights
    densities = module.densities
    ranks = module.ranks
    rank = module.rank
    isRankKnown = module.isRankKnown
  }
}

extension Combination.PlannedModule {
  fileprivate var json: JSON {
    let members: [JSON.Member] = [
      .init("path", .string(path)),
      .init("weights", .array(weights.map { JSON.number($0) })),
      .init("densities", .array(densities.map { JSON.number($0) })),
      .init("ranks", .array(ranks.map { JSON.number($0) })),
      .init("rank", .number(rank)),
      .init("isRankKnown", .bool(isRankKnown)),
      .init("bytes", .number(byteCount)),
    ]
    return .object(members)
  }
}

extension [Double?] {
  /// The numbers, `-` for one that is not there.
  fileprivate var listText: String { map { $0?.measureText ?? "-" }.joined(separator: ", ") }
}
