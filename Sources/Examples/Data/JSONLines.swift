package import Files
import JSON

/// Examples of a file with a JSON object a line: `{"text"}`, `{"prompt", "completion"}` or
/// `{"messages"}`.
///
/// All lines are of one kind. Other members have no effect; blank lines are none.
package struct JSONLines {
  private var values: JSONLineReader
  private var kind: (Example.Kind, line: Int)?

  /// The examples of an input from here on.
  package init(_ input: DataInput) {
    values = JSONLineReader(input)
  }

  /// The next example; nil at the end.
  ///
  /// - Throws: `damaged` for a line that is no JSON or no example, with its number and, where it
  ///   breaks JSON's rules, the place of the byte; `unsupported` as `ChatMessage`; `io`.
  package mutating func next() throws(PeftoolError) -> Example? {
    // The closure cannot take `self`, of which the lines are being read.
    var kind = kind
    defer { self.kind = kind }
    return try values.next { (json, line) throws(PeftoolError) in
      Example(try Self.content(json, line: line, &kind), line: line)
    }
  }

  private static func content(
    _ json: JSON, line: Int, _ known: inout (Example.Kind, line: Int)?
  ) throws(PeftoolError) -> Example.Content {
    guard case .object = json else {
      throw PeftoolError(
        .damaged, "is \(json.summary), expected an object with \(Example.Kind.choices)")
    }
    // A null is what writers of tables put where there is nothing.
    let kinds = Example.Kind.found { key in json[key].map { $0 != .null } ?? false }
    guard let kind = kinds.first else {
      throw PeftoolError(.damaged, "has no \(Example.Kind.choices), one of which is expected")
    }
    guard kinds.count == 1 else {
      throw PeftoolError(
        .damaged, "has \(kinds.map(\.summary).joined(separator: " beside ")), expected one of them")
    }
    if let (first, firstLine) = known, first != kind {
      throw PeftoolError(
        .damaged,
        "has \(kind.summary), line \(firstLine) has \(first.summary): expected one kind a file")
    }
    known = known ?? (kind, line)
    switch kind {
    case .text: return .text(try json.string(at: "text"))
    case .completion:
      return .completion(
        prompt: try json.string(at: "prompt"), completion: try json.string(at: "completion"))
    case .messages:
      let elements = try json.array(at: "messages")
      guard !elements.isEmpty else {
        throw PeftoolError(.damaged, "has no messages, expected at least one")
      }
      var messages: [ChatMessage] = []
      for (index, element) in elements.enumerated() {
        messages.append(try ChatMessage(element, named: "messages[\(index)]"))
      }
      return .messages(messages)
    }
  }
}
