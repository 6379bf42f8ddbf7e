/// What one line of a file of training data says.
package struct Example: Equatable, Sendable {
  /// What is learnt.
  package enum Content: Equatable, Sendable {
    /// A text; all of it is learnt.
    case text(String)
    /// A text of which the prompt is given and the completion learnt.
    case completion(prompt: String, completion: String)
    /// A conversation of which the assistant's turns are learnt.
    case messages([ChatMessage])
  }

  /// What is learnt.
  package let content: Content
  /// The number of the line where it begins, from 1.
  package let line: Int

  package init(_ content: Content, line: Int) {
    self.content = content
    self.line = line
  }
}

extension Example {
  /// The kinds of example, by the fields that make one.
  enum Kind: String, CaseIterable {
    case text
    case completion
    case messages

    /// The fields that it has.
    var fields: [String] { self == .completion ? ["prompt", "completion"] : [rawValue] }

    /// The fields as a message names them.
    var summary: String { fields.joined(separator: " and ") }

    /// What every line may have.
    static let choices = "text, or prompt and completion, or messages"

    /// The kinds of which a field is there.
    static func found(_ isThere: (String) -> Bool) -> [Kind] {
      allCases.filter { $0.fields.contains(where: isThere) }
    }
  }
}
