/// Facts one below the other, a label before each.
package struct Facts: Sendable {
  private var lines: [(label: String, value: String)] = []

  /// No facts yet.
  package init() {}

  /// Adds a fact; nil adds nothing.
  package mutating func append(_ label: String, _ value: String?) {
    if let value { lines.append((label, value)) }
  }

  /// The facts, a long one folded between words at the width.
  package func text(width: Int) -> String {
    let indent = (lines.map(\.label.count).max() ?? 0) + 2
    var text = ""
    for (label, value) in lines {
      var start = label + String(repeating: " ", count: indent - label.count)
      for part in value.folded(width: max(width - indent, 20)) {
        text += start + part + "\n"
        start = String(repeating: " ", count: indent)
      }
    }
    return text
  }
}

extension String {
  /// The words in lines of at most `width` characters; a longer word has a line of its own.
  package func folded(width: Int) -> [String] {
    var lines: [String] = []
    var line = ""
    for word in split(separator: " ") {
      if !line.isEmpty, line.count + 1 + word.count > width {
        lines.append(line)
        line = ""
      }
      line += line.isEmpty ? String(word) : " " + word
    }
    return lines + [line]
  }
}
