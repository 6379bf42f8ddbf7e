import Files
import Patterns

/// An adapter with what of it goes into a combination, by module.
struct Contribution: Sendable {
  let operand: Operand
  let weight: Parameter
  let density: Parameter
  let positions: LayerPositions

  /// The factor on its whole change of a module, 1 where nothing is said; 0 takes it out there.
  func weight(in module: LowRankAdapter.Module) -> Double { weight(of: module.path, module.kind) }

  /// The same for any module's path.
  func weight(of path: String, _ kind: LowRankAdapter.Kind) -> Double {
    weight.value(of: path, at: positions.position(of: path, kind)) ?? 1
  }

  /// The share of a module's entries that are kept; 1 for a method that drops none.
  ///
  /// - Throws: `unsupported` where nothing says it, and where the method's other settings do not go
  ///   with it.
  func density(
    in module: LowRankAdapter.Module, _ settings: CombinationSettings
  ) throws(PeftoolError) -> Double {
    guard settings.method.hasDensity else { return 1 }
    guard
      let density = density.value(
        of: module.path, at: positions.position(of: module.path, module.kind))
    else {
      throw PeftoolError(
        .unsupported, "no density is given for \(module.path.printable)", path: operand.path)
    }
    // All entries: no lots are drawn, and nothing is cut off.
    guard density < 1 else { return density }
    if let reason = settings.refusal(ofDensity: density) {
      throw PeftoolError(
        .unsupported, "\(module.path.printable): \(reason)", path: operand.path)
    }
    return density
  }

  /// The weight that all its modules have; nil where they differ.
  var commonWeight: Double? {
    let weights = Set(operand.adapter.modules.map(weight(in:)))
    return weights.count == 1 ? weights.first : nil
  }

  /// Whether any of its modules counts.
  var isUsed: Bool { operand.adapter.modules.contains { weight(in: $0) != 0 } }

  /// Refuses a filter that is for no module of any of the adapters: a slip of the pen.
  ///
  /// - Throws: `different` with the filter's place.
  func checkFilters(_ paths: [String]) throws(PeftoolError) {
    for rule in weight.rules + density.rules {
      guard let filter = rule.filter, !paths.contains(where: filter.matches) else { continue }
      let place = rule.origin.map { "line \($0.line): \($0.key).filter " } ?? ""
      throw PeftoolError(
        .different,
        "\(place)'\(filter.pattern.printable)' matches none of the \(paths.count) modules, such as "
          + "\(paths[0].printable); it has to match a whole path",
        path: rule.origin?.path)
    }
  }
}

extension CombinationSettings {
  /// Why a density below 1 does not go with gamma or epsilon; nil where it does.
  package func refusal(ofDensity density: Double) -> String? {
    switch method {
    case .della where density - epsilon < 0 || density + epsilon > 1:
      "density \(density) and epsilon \(epsilon) give probabilities outside 0 to 1"
    case .breadcrumbs where density + outliers > 1:
      "density \(density) and gamma \(outliers) are more than all"
    default: nil
    }
  }
}
