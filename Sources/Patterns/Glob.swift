package import Files

/// A pattern for names as a shell's user writes it, which must match the whole name.
///
/// `*` is any run of characters, dots among them, `?` one character, `[a-z]` one of these and
/// `[!a-z]` one of all others, `{q_proj,v_proj}` one of these texts, `{0-21}` an integer of that
/// range, `\` takes the meaning from what follows. Matching goes over the name once for each part of
/// the pattern, whatever the pattern is.
package struct Glob: Sendable {
  fileprivate enum Token: Sendable {
    case character(Unicode.Scalar)
    case anyCharacter
    case anyRun
    case set([ClosedRange<Unicode.Scalar>], isNegated: Bool)
    case choice([Choice])
  }

  fileprivate enum Choice: Sendable {
    case text([Unicode.Scalar])
    case numbers(ClosedRange<Int>)
  }

  /// The pattern as it was given.
  package let pattern: String
  private let tokens: [Token]

  /// Reads a pattern.
  ///
  /// - Throws: `unsupported` where it is empty, ends in `\`, or a bracket is not closed.
  package init(_ pattern: String) throws(PeftoolError) {
    guard !pattern.isEmpty else { throw PeftoolError(.unsupported, "the pattern is empty") }
    self.pattern = pattern
    var parser = Parser(rest: Array(pattern.unicodeScalars)[...])
    var tokens: [Token] = []
    while let token = try parser.next() { tokens.append(token) }
    self.tokens = tokens
  }

  /// Whether the pattern matches the whole name.
  package func matches(_ name: String) -> Bool {
    let name = Array(name.unicodeScalars)
    // Where what the tokens so far stand for may end, in ascending order.
    var ends = [0]
    for token in tokens {
      switch token {
      case .anyRun: ends = Array(ends[0]...name.count)
      case .choice(let choices):
        ends = Set(ends.flatMap { end in choices.flatMap { $0.ends(in: name[end...]) } }).sorted()
      default:
        ends = ends.filter { $0 < name.count && token.stands(for: name[$0]) }.map { $0 + 1 }
      }
      if ends.isEmpty { return false }
    }
    return ends.last == name.count
  }
}

extension Glob.Token {
  /// Whether the token, one character by its kind, may be this one.
  fileprivate func stands(for character: Unicode.Scalar) -> Bool {
    switch self {
    case .anyCharacter: true
    case .character(let own): own == character
    case .set(let ranges, let isNegated): ranges.contains { $0.contains(character) } != isNegated
    case .anyRun, .choice: preconditionFailure("not one character")
    }
  }
}

extension Glob.Choice {
  /// Where the choice's text, if the name begins with it, ends; for numbers all their digits.
  fileprivate func ends(in name: ArraySlice<Unicode.Scalar>) -> [Int] {
    switch self {
    case .text(let text):
      return name.starts(with: text) ? [name.startIndex + text.count] : []
    case .numbers(let range):
      let digits = name.prefix { ("0"..."9").contains($0) }
      guard let value = Int(String(String.UnicodeScalarView(digits))), range.contains(value),
        digits.count == String(value).count
      else { return [] }
      return [digits.endIndex]
    }
  }
}

/// Reads a pattern's tokens from left to right.
private struct Parser {
  var rest: ArraySlice<Unicode.Scalar>

  mutating func next() throws(PeftoolError) -> Glob.Token? {
    guard let character = rest.popFirst() else { return nil }
    switch character {
    case "*": return .anyRun
    case "?": return .anyCharacter
    case "[": return try set()
    case "{": return .choice(try choices())
    case "\\": return .character(try escaped())
    default: return .character(character)
    }
  }

  private mutating func escaped() throws(PeftoolError) -> Unicode.Scalar {
    guard let character = rest.popFirst() else {
      throw PeftoolError(.unsupported, "the pattern ends in \\, expected a character after it")
    }
    return character
  }

  private mutating func set() throws(PeftoolError) -> Glob.Token {
    let isNegated = rest.first == "!" || rest.first == "^"
    if isNegated { rest.removeFirst() }
    var ranges: [ClosedRange<Unicode.Scalar>] = []
    while var character = rest.popFirst() {
      // A bracket that comes first stands for itself.
      if character == "]", !ranges.isEmpty { return .set(ranges, isNegated: isNegated) }
      if character == "\\" { character = try escaped() }
      if rest.first == "-", let end = rest.dropFirst().first, end != "]", character <= end {
        rest.removeFirst(2)
        ranges.append(character...end)
      } else {
        ranges.append(character...character)
      }
    }
    throw PeftoolError(.unsupported, "'[' is not closed; \\[ stands for the character")
  }

  private mutating func choices() throws(PeftoolError) -> [Glob.Choice] {
    var choices: [Glob.Choice] = []
    var text: [Unicode.Scalar] = []
    while let character = rest.popFirst() {
      switch character {
      case "}", ",":
        choices.append(Self.choice(text))
        text = []
        if character == "}" { return choices }
      case "\\": text.append(try escaped())
      default: text.append(character)
      }
    }
    throw PeftoolError(.unsupported, "'{' is not closed; \\{ stands for the character")
  }

  private static func choice(_ text: [Unicode.Scalar]) -> Glob.Choice {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false)
      .map { Int(String(String.UnicodeScalarView($0))) }
    if ends.count == 2, let first = ends[0], let last = ends[1], first <= last {
      return .numbers(first...last)
    }
    return .text(text)
  }
}
