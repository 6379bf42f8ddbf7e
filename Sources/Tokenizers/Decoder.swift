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

  /// The text that a token becomes.
  ///
  /// - Throws: `unsupported` where a pattern takes too many steps.
  func changed(_ token: [UInt8], isFirst: Bool, isLast: Bool) throws(PeftoolError) -> [UInt8] {
    switch self {
    case .replace(let pattern, let content): return try Self.replace(pattern, content, in: token)
    case .strip(let scalar, let start, let stop):
      return Self.strip(token, scalar, start: start, stop: stop)
    case .metaspace(let metaspace):
      let space = isFirst && metaspace.scheme != .never ? [] : [UInt8(ascii: " ")]
      return Self.replace(metaspace.sign, by: space, in: token)
    case .wordEnd(let pattern):
      return try Self.replace(pattern, isLast ? [] : [UInt8(ascii: " ")], in: token)
    case .spaced: return isFirst ? token : [UInt8(ascii: " ")] + token
    }
  }

  private static func replace(
    _ pattern: TextPattern, _ content: [UInt8], in token: [UInt8]
  ) throws(PeftoolError) -> [UInt8] {
    if case .literal(let text) = pattern { return replace(text, by: content, in: token) }
    var search = try PatternSearch(textByteCount: token.count, spareStepCount: 10_000)
    var text = NormalizedText(token, isFirst: false)
    var matches: [Range<Int>] = []
    // An empty token has no matches, whatever the pattern.
    guard !token.isEmpty else { return [] }
    try pattern.forEachMatch(in: token.span, &search) { matches.append($0) }
    text.replace(matches, by: content)
    return text.bytes
  }

  private static func replace(
    _ text: [UInt8], by content: [UInt8], in token: [UInt8]
  ) -> [UInt8] {
    guard var start = token.span.firstPlace(of: text.span, from: 0) else { return token }
    var result: [UInt8] = []
    var copied = 0
    while true {
      result += token[copied..<start]
      result += content
      copied = start + text.count
      guard let next = token.span.firstPlace(of: text.span, from: copied) else { break }
      start = next
    }
    return result + token[copied...]
  }

  private static func strip(
    _ token: [UInt8], _ scalar: Unicode.Scalar, start: Int, stop: Int
  ) -> [UInt8] {
    let text = token.span
    var (first, last) = (0, token.count)
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
    return Array(token[first..<last])
  }
}
