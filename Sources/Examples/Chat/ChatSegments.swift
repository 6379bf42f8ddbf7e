/// A conversation as the text that a model reads, in pieces.
package struct ChatSegments: Equatable, Sendable {
  /// A piece of the text.
  package struct Segment: Equatable, Sendable {
    /// The piece; pieces one behind the other are the text.
    package let text: String
    /// Whether the assistant writes it: what it says, and the token that ends its turn.
    ///
    /// It begins where a prompt for an answer ends. What a template puts behind the token that ends
    /// the turn, such as ChatML's newline, is no part of it, since nothing is generated there.
    package let isAssistant: Bool
  }

  /// The pieces in order; none is empty.
  package private(set) var segments: [Segment] = []

  /// The whole text.
  package var text: String { segments.map(\.text).joined() }

  /// Adds a piece that is not the assistant's.
  mutating func append(_ text: String) { append(text, isAssistant: false) }

  /// Adds a piece that the assistant writes.
  mutating func appendAnswer(_ text: String) { append(text, isAssistant: true) }

  private mutating func append(_ text: String, isAssistant: Bool) {
    guard !text.isEmpty else { return }
    if let last = segments.last, last.isAssistant == isAssistant {
      segments[segments.count - 1] = Segment(text: last.text + text, isAssistant: isAssistant)
    } else {
      segments.append(Segment(text: text, isAssistant: isAssistant))
    }
  }
}
