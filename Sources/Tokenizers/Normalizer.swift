import Files
import JSON
import Patterns

/// What is done to a text before it is cut (`normalizers` of the `tokenizers` library).
enum Normalizer: Sendable {
  case prepend([UInt8])
  case replace(TextPattern, by: [UInt8])
  case unicode(NormalizationForm)
  case lowercase
  case strip(left: Bool, right: Bool)
  case stripAccents
  case byteLevel

  /// The steps of a normalizer, those of sequences one after the other.
  ///
  /// - Throws: `unsupported` for a type that peftool does not know, `damaged` where a member is
  ///   missing or of another type.
  static func steps(of part: Part) throws(PeftoolError) -> [Normalizer] {
    guard part.type == "Sequence" else { return [try Normalizer(part)] }
    try part.hasOnly("normalizers")
    var steps: [Normalizer] = []
    for step in try part.parts("normalizers") { steps += try Self.steps(of: step) }
    return steps
  }

  private init(_ part: Part) throws(PeftoolError) {
    switch part.type {
    case "Prepend":
      try part.hasOnly("prepend")
      self = .prepend(Array(try part.string("prepend").utf8))
    case "Replace":
      try part.hasOnly("pattern", "content")
      self = .replace(try part.pattern(), by: Array(try part.string("content").utf8))
    case "NFC", "NFD", "NFKC", "NFKD":
      try part.hasOnly()
      self = .unicode(
        NormalizationForm(
          composes: part.type.hasSuffix("C"), isCompatible: part.type.hasPrefix("NFK")))
    case "Lowercase":
      try part.hasOnly()
      self = .lowercase
    case "Strip":
      try part.hasOnly("strip_left", "strip_right")
      self = .strip(left: try part.bool("strip_left"), right: try part.bool("strip_right"))
    case "StripAccents":
      try part.hasOnly()
      self = .stripAccents
    case "ByteLevel":
      try part.hasOnly()
      self = .byteLevel
    default: throw part.unknown
    }
  }

  /// Changes a text.
  ///
  /// - Throws: `unsupported` where a pattern takes too many steps, or the text becomes too long.
  func normalize(
    _ text: inout NormalizedText, _ search: inout PatternSearch
  ) throws(PeftoolError) {
    let byteCount = text.bytes.count
    switch self {
    case .prepend(let prefix): text.prepend(prefix)
    case .replace(let pattern, let content):
      try text.replace(by: content) { (bytes, replace) throws(PeftoolError) in
        try pattern.forEachMatch(in: bytes, &search, replace)
      }
    case .unicode(let form): try form.normalize(&text)
    case .lowercase: text.map(Self.appendLowercase)
    case .strip(let left, let right): Self.strip(&text, left: left, right: right)
    case .stripAccents:
      text.map { Self.append($0, to: &$1) { !$0.isCombiningMark } }
    case .byteLevel: text.map { ByteAlphabet.append($0, to: &$1) }
    }
    try text.growth.spend(text.bytes.count - byteCount)
  }

  private static func appendLowercase(_ text: Span<UInt8>, to result: inout [UInt8]) {
    var place = 0
    while place < text.count {
      let byte = text[place]
      if byte < 0x80 {
        result.append((UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) ? byte | 0x20 : byte)
        place += 1
      } else {
        result.append(contentsOf: text.scalar(at: place).properties.lowercaseMapping.utf8)
        place = text.endOfCharacter(at: place)
      }
    }
  }

  private static func strip(_ text: inout NormalizedText, left: Bool, right: Bool) {
    let old = text.bytes
    let bytes = old.span
    var (start, end) = (0, bytes.count)
    while left, start < end, bytes.scalar(at: start).properties.isWhitespace {
      start = bytes.endOfCharacter(at: start)
    }
    while right, start < end {
      let (scalar, before) = bytes.scalar(before: end)
      guard scalar.properties.isWhitespace else { break }
      end = before
    }
    text.keep(start..<end)
  }

  /// Appends the characters that are to be kept.
  private static func append(
    _ text: Span<UInt8>, to result: inout [UInt8], where isKept: (Unicode.Scalar) -> Bool
  ) {
    var place = 0
    while place < text.count {
      let end = text.endOfCharacter(at: place)
      if end == place + 1 || isKept(text.scalar(at: place)) { result.append(text, place..<end) }
      place = end
    }
  }
}
