package import Files
import JSON
import Patterns

/// One entry of `rank_pattern` or `alpha_pattern`: a value for the modules that a key matches.
///
/// The key is a regular expression for the end of a module's path, from a dot on
/// (`get_pattern_key` in PEFT's `utils/other.py`: `(.*\.)?(KEY)$`).
package struct ModulePattern<Value: Sendable>: Sendable {
  /// The key as it stands in the configuration.
  package let key: String
  /// What it says of those modules.
  package let value: Value
  private let expression: RegularExpression

  /// Compiles a key.
  ///
  /// - Throws: `damaged` where it is no regular expression.
  package init(key: String, value: Value) throws(PeftoolError) {
    self.key = key
    self.value = value
    expression = try RegularExpression("(.*\\.)?(\(key))$")
  }

  /// Whether it applies to a module's path.
  ///
  /// - Throws: `unsupported` where the match takes too many steps.
  package func matches(_ path: String) throws(PeftoolError) -> Bool {
    try expression.matchesStart(of: path)
  }
}

extension Array {
  /// The value of the first pattern that matches, in the order of the file, as PEFT looks it up.
  package func firstValue<Value>(
    for path: String
  ) throws(PeftoolError) -> Value? where Element == ModulePattern<Value> {
    for pattern in self where try pattern.matches(path) { return pattern.value }
    return nil
  }
}
