import Files
import JSON
import Patterns

/// One step from tokens to text (`decoders` of the `tokenizers` library).
enum Decoder: Sendable {
  /// Characters that stand for bytes become these, and all tokens one.
  case byteLevel
  /// `<0x41>` becomes a byte.
  case byteFallback
  /// All tokens become one.
  case fuse
  /// The same change of each token.
  case map(TokenChange)

  /// The steps of a decoder, those of sequences one after the other.
  ///
  /// - Throws: `unsupported` for a type that peftool does not know, `damaged` where a member is
  ///   missing or of another type.
  static func steps(of part: Part) throws(PeftoolError) -> [Decoder] {
    switch part.type {
    case "Sequence":
      try part.hasOnly("decoders")
      var steps: [Decoder] = []
      for step in try part.parts("decoders") { steps += try Self.steps(of: step) }
      return steps
    case "ByteLevel":
      try part.hasOnly("add_prefix_space", "trim_offsets", "use_regex")
      return [.byteLevel]
    case "ByteFallback":
      try part.hasOnly()
      return [.byteFallback]
    case "Fuse":
      try part.hasOnly()
      return [.fuse]
    case "Strip":
      try part.hasOnly("content", "start", "stop")
      return [
        .map(
          .strip(
            try part.scalar("content"), start: try part.count("start"),
            stop: try part.count("stop")))
      ]
    case "Replace":
      try part.hasOnly("pattern", "content")
      return [.map(.replace(try part.pattern(), by: Array(try part.string("content").utf8)))]
    case "Metaspace": return [.map(.metaspace(try Metaspace(part)))]
    case "BPEDecoder":
      try part.hasOnly("suffix")
      let suffix = try part.string("suffix")
      guard !suffix.isEmpty else {
        throw PeftoolError(.unsupported, "\(part.place).suffix is empty")
      }
      return [.map(.wordEnd(try TextPattern(literal: suffix)))]
    default: throw part.unknown
    }
  }
}

/// A change of one token, which may depend on where it stands.
enum TokenChange: Sendable {
  case replace(TextPattern, by: [UInt8])
  /// Takes up to so many of one character off the ends.
  case strip(Unicode.Scalar, start: Int, stop: Int)
  /// Signs become spaces, and in the first token nothing.
  case metaspace(Metaspace)
  /// Ends of words become spaces, and in the last token nothing.
  case wordEnd(TextPattern)
  /// Tokens but the first have a space before them: what happens without a decoder.
  case spaced

  /// Whether it must be known which token is the last.
  var dependsOnLast: Bool {
    if case .wordEnd = self { true } else { false }
  }

  /// Appends the text that a token becomes.
  ///
  /// - Throws: `unsupported` where a pattern takes too many steps, or more is added than may be.
  func append(
    _ token: Span<UInt8>, isFirst: Bool, isLast: Bool, to result: inout [UInt8],
    _ growth: inout GrowthBudget
  ) throws(PeftoolError) {
    let space = [UInt8(ascii: " ")]
    switch self {
    case .replace(let pattern, let content):
      try Self.append(token, replacing: pattern, by: content, to: &result, &growth)
    case .strip(let scalar, let start, let stop):
      result.append(token, Self.stripped(token, scalar, start: start, stop: stop))
    case .metaspace(let metaspace):
      let isNothing = isFirst && metaspace.scheme != .never
      try Self.append(
        token, replacing: .literal(metaspace.sign), by: isNothing ? [] : space, to: &result,
        &growth)
    case .wordEnd(let pattern):
      try Self.append(
        token, replacing: pattern, by: isLast ? [] : space, to: &result, &growth)
    case .spaced:
      if !isFirst { result += space }
      result.append(token, token.indices)
    }
  }

  private static func append(
    _ token: Span<UInt8>, replacing pattern: TextPattern, by content: [UInt8],
    to result: inout [UInt8], _ growth: inout GrowthBudget
  ) throws(PeftoolError) {
    // An empty token has no matches, whatever the pattern.
    guard !token.isEmpty else { return }
    let start = result.count
    var copied = 0
    let budget = growth
    try pattern.forEachMatch(in: token, spareStepCount: 10_000) { (match) throws(PeftoolError) in
      result.append(token, copied..<match.lowerBound)
      result += content
      copied = match.upperBound
      try budget.check(result.count - start - copied)
    }
    result.append(token, copied..<token.count)
    try growth.spend(result.count - start - token.count)
  }

  /// What is left when one character is taken off the ends.
  private static func stripped(
    _ text: Span<UInt8>, _ scalar: Unicode.Scalar, start: Int, stop: Int
  ) -> Range<Int> {
    var (first, last) = (0, text.count)
    var (startLeft, stopLeft) = (start, stop)
    while startLeft > 0, first < last, text.scalar(at: first) == scalar {
      first = text.endOfCharacter(at: first)
      startLeft -= 1
    }
    while stopLeft > 0, first < last {
      let (other, before) = text.scalar(before: last)
      guard other == scalar else { break }
      last = before
      stopLeft -= 1
    }
    return first..<last
  }
}
