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
  /// The path that the key stands for where it is one, escaped, from its start on.
  private let path: String?

  /// Compiles a key.
  ///
  /// - Throws: `damaged` where it is no regular expression.
  package init(key: String, value: Value) throws(PeftoolError) {
    self.key = key
    self.value = value
    // By itself first, so that a message has what was given.
    _ = try RegularExpression(key)
    expression = try RegularExpression("(.*\\.)?(\(key))$")
    path = Self.path(key)
  }

  /// The path of a key such as `^model\.layers\.0\.q_proj`, which arithmetic writes by thousands.
  private static func path(_ key: String) -> String? {
    guard key.hasPrefix("^") else { return nil }
    var path = ""
    var isEscaped = false
    for character in key.dropFirst() {
      if isEscaped || character == "_"
        || character.isASCII && (character.isLetter || character.isNumber)
      {
        // A letter that is escaped means something else.
        guard !isEscaped || character.isPunctuation || character.isSymbol else { return nil }
        path.append(character)
        isEscaped = false
      } else if character == "\\" {
        isEscaped = true
      } else {
        return nil
      }
    }
    return isEscaped ? nil : path
  }

  /// Whether it applies to a module's path.
  ///
  /// - Throws: `unsupported` where the match takes too many steps.
  package func matches(_ path: String) throws(PeftoolError) -> Bool {
    if let own = self.path { return own.isExactly(path) }
    return try expression.matchesStart(of: path)
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
