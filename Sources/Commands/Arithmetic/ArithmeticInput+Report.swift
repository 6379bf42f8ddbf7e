import Adapters
import Files
import JSON
import Reports

// How reports tell of what arithmetic reads.
extension ArithmeticInput {
  /// The path, and an adapter's weight where it is not 1.
  var text: String {
    guard let weight else { return "\(path.printable) (weight by module)" }
    let isPlain = weight == 1 || role != "adapter"
    return path.printable + (isPlain ? "" : " (weight \(weight.measureText))")
  }

  /// Role, path and weight for a program.
  var json: JSON {
    .object([
      .init("role", .string(role)), .init("path", .string(path)),
      .init("weight", .number(weight)),
    ])
  }
}

extension JSON {
  /// A number, or null for none.
  static func number(_ value: Double?) -> JSON {
    guard let value else { return .null }
    return .number(value)
  }

  /// A number, or null for none.
  static func number(_ value: Int?) -> JSON {
    guard let value else { return .null }
    return .number(value)
  }

  /// A text, or null for none.
  static func text(_ value: String?) -> JSON {
    guard let value else { return .null }
    return .string(value)
  }
}
