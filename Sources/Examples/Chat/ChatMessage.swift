package import Files
package import JSON

/// One turn of a conversation.
package struct ChatMessage: Equatable, Sendable {
  /// Who speaks.
  package enum Role: String, CaseIterable, Sendable {
    case system
    case user
    case assistant
  }

  /// Who speaks.
  package let role: Role
  /// What is said, as it stands in the data.
  package let content: String
  /// What an assistant thought first, where the data keeps that apart; only `qwen3` writes it.
  package let reasoning: String?

  package init(_ role: Role, _ content: String, reasoning: String? = nil) {
    self.role = role
    self.content = content
    self.reasoning = reasoning
  }

  /// The keys under which reasoning stands, the first of them that is there counting, as in
  /// transformers' `render_jinja_template`.
  private static let reasoningKeys = ["reasoning_content", "thinking", "reasoning"]

  /// Reads `{"role": …, "content": …}`; `place` names it in errors.
  ///
  /// A member that is `null` counts as absent, as in transformers' `apply_chat_template`. Members
  /// that no template of `ChatTemplate` writes, such as `name`, have no effect.
  /// - Throws: `damaged` where role or content are missing or no strings; `unsupported` for another
  ///   role and for calls of tools.
  package init(_ json: JSON, named place: String) throws(PeftoolError) {
    _ = try json.object(named: place)
    func member(_ key: String) -> JSON? { json[key].flatMap { $0 == .null ? nil : $0 } }
    func text(_ key: String) throws(PeftoolError) -> String {
      guard let value = member(key) else {
        throw PeftoolError(.damaged, "\(place).\(key) is missing, expected a string")
      }
      return try value.string(named: "\(place).\(key)")
    }
    let name = try text("role")
    guard let role = Role.allCases.first(where: { $0.rawValue.isExactly(name) }) else {
      throw PeftoolError(
        .unsupported, "\(place).role is '\(name.printable)', expected system, user or assistant")
    }
    for key in ["tool_calls", "function_call"] where member(key) != nil {
      throw PeftoolError(
        .unsupported,
        "\(place) has \(key), and calls of tools have no place in a chat template here")
    }
    self.role = role
    content = try text("content")
    var reasoning: String?
    for key in Self.reasoningKeys where reasoning == nil && member(key) != nil {
      reasoning = try text(key)
    }
    self.reasoning = reasoning
  }
}
