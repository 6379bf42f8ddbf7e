import Files

/// Looks for what makes a regular expression take more than a time linear in the text at one place,
/// however few the steps that Oniguruma counts.
///
/// A lookaround that may read on to the text's end does so each time it is repeated:
/// `(?:a(?=[^c]*c))*` reads a text of n characters n times. `\g` may call what it stands in; `\X`,
/// `\y` and `\Y` look back over all flags before them; `\G` is where a search begins, and each place
/// is searched by itself. No known tokenizer has any of these. Where a pattern
/// has a lookaround, what would hide parentheses from this reader is found, too.
struct PatternShape {
  /// A group that is open.
  private struct Group {
    var isLookaround = false
    /// Whether something in it may go on to the text's end.
    var isEndless = false
    /// Whether a lookaround in it may.
    var hasEndlessLookaround = false
  }

  private let bytes: [UInt8]
  private var place = 0
  private var groups = [Group()]

  private init(_ pattern: String) {
    bytes = Array(pattern.utf8)
  }

  /// What a pattern, which is well-formed, has of these; nil where it has nothing.
  static func unboundedPart(of pattern: String) -> String? {
    var shape = PatternShape(pattern)
    return shape.unboundedPart()
  }

  private mutating func unboundedPart() -> String? {
    let lookarounds = ["(?=", "(?!", "(?<=", "(?<!"]
    let hasLookaround = bytes.indices.contains { at in lookarounds.contains { begins($0, at) } }
    while place < bytes.count {
      switch bytes[place] {
      case UInt8(ascii: "\\"):
        if let escape = ["\\g", "\\G", "\\X", "\\y", "\\Y"].first(where: { begins($0, place) }) {
          return escape
        }
        skipEscape()
        repeatLast(Group())
      case UInt8(ascii: "[") where hasLookaround:
        guard skipClass() else { return "a class that begins with ]" }
        repeatLast(Group())
      case UInt8(ascii: "(") where hasLookaround:
        for hidden in ["(?#", "(?~", "(?{", "(*"] where begins(hidden, place) { return hidden }
        if setsExtended { return "the option x" }
        groups.append(Group(isLookaround: lookarounds.contains { begins($0, place) }))
        // What follows the question mark is no repeat.
        place += begins("(?", place) ? 2 : 1
      case UInt8(ascii: ")") where groups.count > 1:
        let group = groups.removeLast()
        place += 1
        if !repeatLast(group) { return "a lookaround without an end that is repeated" }
      default:
        place += 1
        repeatLast(Group())
      }
    }
    return nil
  }

  private func begins(_ text: String, _ at: Int) -> Bool { bytes[at...].starts(with: text.utf8) }

  /// Whether the group that begins here changes options, `x` among them.
  private var setsExtended: Bool {
    guard begins("(?", place) else { return false }
    let letters = bytes[(place + 2)...].prefix {
      (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0)
        || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) || $0 == UInt8(ascii: "-")
    }
    return letters.contains(UInt8(ascii: "x"))
  }

  /// Goes over an escape, with the braces of one such as `\p{L}`, which are no repeat.
  private mutating func skipEscape() {
    let hasBraces = ["\\p{", "\\P{", "\\x{", "\\o{"].contains { begins($0, place) }
    let end = hasBraces ? bytes[place...].firstIndex(of: UInt8(ascii: "}")) : nil
    place = end.map { $0 + 1 } ?? place + 2
  }

  /// Goes over a class, and those in it; false where one begins with its own end, which may be read
  /// in two ways.
  private mutating func skipClass() -> Bool {
    var depth = 0
    while place < bytes.count {
      switch bytes[place] {
      case UInt8(ascii: "\\"): place += 1
      case UInt8(ascii: "["):
        if begins("[]", place) || begins("[^]", place) { return false }
        depth += 1
      case UInt8(ascii: "]"): depth -= 1
      default: break
      }
      place += 1
      if depth == 0 { return true }
    }
    return true
  }

  /// Takes what was read last with the repeats behind it; false where these repeat a lookaround
  /// that may read on to the text's end.
  @discardableResult
  private mutating func repeatLast(_ group: Group) -> Bool {
    var group = group
    let isEndlessLookaround =
      group.hasEndlessLookaround || (group.isLookaround && group.isEndless)
    while place < bytes.count, let isEndless = readRepeat() {
      if isEndlessLookaround { return false }
      if isEndless { group.isEndless = true }
    }
    groups[groups.count - 1].isEndless = groups[groups.count - 1].isEndless || group.isEndless
    if isEndlessLookaround { groups[groups.count - 1].hasEndlessLookaround = true }
    return true
  }

  /// The most times that something may be repeated and still have an end.
  private static let maximumCount = 64

  /// Goes over a repeat that stands here, but `?`, which repeats nothing; says whether it has no
  /// end, and nil where there is none.
  private mutating func readRepeat() -> Bool? {
    switch bytes[place] {
    case UInt8(ascii: "*"), UInt8(ascii: "+"):
      place += 1
      return true
    case UInt8(ascii: "?"):
      place += 1
      return place < bytes.count ? readRepeat() : nil
    case UInt8(ascii: "{"):
      guard let end = bytes[place...].firstIndex(of: UInt8(ascii: "}")) else { return nil }
      let numbers = bytes[(place + 1)..<end].split(
        separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
      // Braces around something else are text; to take them for a repeat refuses more, not less.
      let last = numbers.last.flatMap { Int(String(decoding: $0, as: UTF8.self)) }
      place = end + 1
      return last.map { $0 > Self.maximumCount } ?? true
    default: return nil
    }
  }
}
