import Synchronization

/// Finds the tensors of a base for the modules that an adapter names.
///
/// An adapter names modules as they are called in the running model; a checkpoint may lack the
/// model's own prefix (`transformer.` of GPT-2), or keep names from before a renaming in
/// transformers, which maps them while it loads.
package struct ModuleNames: Sendable {
  private let base: BaseModel
  private let budget = ComparisonBudget()

  package init(_ base: BaseModel) { self.base = base }

  /// Prefixes that a checkpoint may have in place of the module's: from the model, to the file.
  private static let prefixes = [
    ("model.language_model.", "language_model.model."), ("model.language_model.", "model."),
    ("language_model.model.", "model.language_model."), ("model.visual.", "visual."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.", ""), ("transformer.", ""), ("bert.", ""), ("roberta.", ""), ("gpt_neox.", ""),
    ("", "model."), ("", "transformer."), ("", "bert."), ("", "roberta."), ("", "gpt_neox."),
  ]

  /// Components of names that transformers 5 has renamed: in the model, in the file.
  private static let components = [("mlp", "block_sparse_moe"), ("block_sparse_moe", "mlp")]

  /// The paths under which a module may stand in the file, the likeliest first.
  func spellings(of module: String) -> [String] {
    var spellings = [module]
    let path = module.split(separator: ".", omittingEmptySubsequences: false)
    for (from, to) in Self.components where path.contains(Substring(from)) {
      spellings.append(path.map { $0 == from ? to : String($0) }.joined(separator: "."))
    }
    for spelling in spellings {
      for (from, to) in Self.prefixes where spelling.hasPrefix(from) {
        spellings.append(to + spelling.dropFirst(from.count))
      }
    }
    return spellings
  }

  /// The paths that a module may have in the running model, by its path in the file, which is the
  /// first of them: `spellings` the other way round.
  static func modelPaths(of module: String) -> [String] {
    [module]
      + prefixes.compactMap { from, to in
        module.hasPrefix(to) ? from + module.dropFirst(to.count) : nil
      }
  }

  /// A module's parameter in the base; nil where there is none.
  package func tensor(_ module: String, _ parameter: String) -> BaseModel.Tensor? {
    for spelling in spellings(of: module) {
      if let found = base["\(spelling).\(parameter)"] { return found }
    }
    return nil
  }

  /// The names of the base nearest to one that it does not have, by edit distance.
  ///
  /// None once a second or so went into such searches: of an adapter for another model not one
  /// name may be found, out of thousands.
  package func nearest(to name: String, count: Int = 3) -> [String] {
    guard budget.isLeft else { return [] }
    let wanted = Array(name.utf8.prefix(Self.maximumComparedByteCount))
    return base.tensors.map(\.name)
      .map { name in
        let known = Array(name.utf8.prefix(Self.maximumComparedByteCount))
        budget.take(wanted.count * known.count)
        return (distance: Self.distance(wanted, known), name: name)
      }
      .sorted { ($0.distance, $0.name) < ($1.distance, $1.name) }
      .prefix(count).map(\.name)
  }

  private static let maximumComparedByteCount = 200

  /// The Levenshtein distance of two names.
  private static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
    var row = Array(0...b.count)
    for (i, x) in a.enumerated() {
      var diagonal = row[0]
      row[0] = i + 1
      for (j, y) in b.enumerated() {
        let above = row[j + 1]
        row[j + 1] = min(above + 1, row[j] + 1, diagonal + (x == y ? 0 : 1))
        diagonal = above
      }
    }
    return row[b.count]
  }
}

/// How many pairs of bytes may still be compared; shared by the copies of a value.
private final class ComparisonBudget: Sendable {
  private let pairs = Atomic<Int>(300_000_000)

  var isLeft: Bool { pairs.load(ordering: .relaxed) > 0 }

  func take(_ count: Int) { pairs.wrappingSubtract(count, ordering: .relaxed) }
}
