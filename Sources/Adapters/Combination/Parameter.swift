package import Patterns

/// A number that may differ by module: the `weight` or the `density` of an adapter.
///
/// It is a list of rules, of which the first whose filter matches the module's path counts. Each has
/// one number for all layers, or several that lie evenly from the first layer to the last, with
/// straight lines between them (gradients of mergekit: `evaluate_setting` of its `config.py`).
package struct Parameter: Sendable {
  /// What holds for some modules.
  package struct Rule: Sendable {
    /// The modules that it is for; nil for all.
    package let filter: Glob?
    /// The numbers along the layers; one at least.
    package let values: [Double]
    /// Where it stands in a recipe.
    package let origin: Origin?

    /// What holds for the modules of a filter; of values there is one at least.
    package init(filter: Glob?, values: [Double], origin: Origin?) {
      precondition(!values.isEmpty, "a number at least")
      self.filter = filter
      self.values = values
      self.origin = origin
    }

    /// The value at a place from 0, the first layer, to 1, the last.
    func value(at position: Double) -> Double {
      let scaled = position * Double(values.count - 1)
      let left = Int(scaled)
      let right = min(values.count - 1, left + 1)
      let share = scaled - Double(left)
      let (from, to) = (values[left], values[right])
      // Rounding must not lead out of what is between the two.
      return max(min((1 - share) * from + share * to, max(from, to)), min(from, to))
    }
  }

  /// A place in a recipe, for messages.
  package struct Origin: Sendable {
    /// The recipe's path, where it is a file.
    package let path: String?
    /// The line, from 1.
    package let line: Int
    /// The keys on the way to it: `adapters[0].weight[1]`.
    package let key: String
  }

  /// The rules in their order.
  package let rules: [Rule]

  package init(_ rules: [Rule]) { self.rules = rules }

  /// One number for every module.
  package init(_ value: Double) {
    self.init([Rule(filter: nil, values: [value], origin: nil)])
  }

  /// These rules, and those of another for the modules that none of these is for.
  package func otherwise(_ other: Parameter?) -> Parameter {
    Parameter(rules + (other?.rules ?? []))
  }

  /// The one number that all modules have; nil where there may be others.
  package var constant: Double? {
    guard let rule = rules.first, rule.filter == nil, rule.values.count == 1 else { return nil }
    return rule.values[0]
  }

  /// The value for a module at a place from 0, the first layer, to 1, the last; nil where no rule
  /// is for it.
  package func value(of path: String, at position: Double) -> Double? {
    rules.first { $0.filter?.matches(path) ?? true }?.value(at: position)
  }
}

extension Parameter: ExpressibleByFloatLiteral, ExpressibleByIntegerLiteral {
  /// One number for every module.
  package init(floatLiteral value: Double) { self.init(value) }
  /// One number for every module.
  package init(integerLiteral value: Int) { self.init(Double(value)) }
}
