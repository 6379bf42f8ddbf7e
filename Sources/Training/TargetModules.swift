package import Files
package import JSON
import Models
package import Patterns

/// Which linear layers get adapters: PEFT's `target_modules`.
package enum TargetModules: Sendable {
  /// All but the output embedding.
  case allLinear
  /// Those whose path is or ends with one of these names.
  case names([String])
  /// Those whose whole path an expression matches.
  case expression(String, RegularExpression)

  /// The word for all linear layers.
  package static let allLinearName = "all-linear"

  /// Reads what a user gives: `all-linear`, names separated by commas, or a regular expression,
  /// which is what holds other signs than names do.
  ///
  /// - Throws: `damaged` where that is no regular expression.
  package init(_ text: String) throws(PeftoolError) {
    if text == Self.allLinearName {
      self = .allLinear
      return
    }
    let names = text.commaParts
    let isName = { (name: String) in
      !name.isEmpty && name.allSatisfy { $0.isLetter || $0.isNumber || "_.-".contains($0) }
    }
    if names.allSatisfy(isName) {
      self = .names(names)
    } else {
      // By itself first, so that a message has what was given.
      _ = try RegularExpression(text)
      self = .expression(text, try RegularExpression("(?:\(text))$"))
    }
  }

  /// Whether a layer gets one.
  ///
  /// - Throws: `unsupported` where a match takes too many steps.
  package func contains(_ module: String) throws(PeftoolError) -> Bool {
    switch self {
    case .allLinear: module != TrainedWeights.head
    case .names(let names): names.contains { Self.matches(module, $0) }
    case .expression(_, let expression): try expression.matchesStart(of: module)
    }
  }

  /// Those of some layers that get one.
  ///
  /// - Throws: as `contains`.
  package func chosen(of modules: [String]) throws(PeftoolError) -> [String] {
    var chosen: [String] = []
    for module in modules where try contains(module) { chosen.append(module) }
    return chosen
  }

  /// The names that fit none of some layers.
  package func unmatched(in modules: [String]) -> [String] {
    guard case .names(let names) = self else { return [] }
    return names.filter { name in !modules.contains { Self.matches($0, name) } }
  }

  /// The last components of the names of some layers, each once.
  package static func lastNames(of modules: [String]) -> [String] {
    Set(modules.map { String($0.split(separator: ".").last ?? "") }).sorted()
  }

  private static func matches(_ module: String, _ name: String) -> Bool {
    module == name || module.hasSuffix("." + name)
  }

  /// As it stands in `adapter_config.json`, of the layers that there are.
  package func json(of modules: [String]) -> JSON {
    switch self {
    case .allLinear:
      // PEFT too writes what it has found.
      .array(Self.lastNames(of: modules).map(JSON.string))
    case .names(let names): .array(names.map(JSON.string))
    case .expression(let text, _): .string(text)
    }
  }
}
