import Files
import JSON
import Patterns

/// How a text is cut into pieces, of which each becomes tokens by itself (`pre_tokenizers` of the
/// `tokenizers` library).
enum PreTokenizer: Sendable {
  case byteLevel(addsSpace: Bool, cutsBy: TextPattern?)
  case split(TextPattern, SplitBehavior, isInverted: Bool)
  case digits(SplitBehavior)
  case metaspace(Metaspace)
  case punctuation(SplitBehavior)
  case words
  case spaces
  /// Every byte's character in its place: what follows byteLevel sees these.
  case byteCharacters

  /// The steps of a pre-tokenizer, those of sequences one after the other.
  ///
  /// - Throws: `unsupported` for a type that peftool does not know, `damaged` where a member is
  ///   missing or of another type.
  static func steps(of part: Part) throws(PeftoolError) -> [PreTokenizer] {
    switch part.type {
    case "Sequence":
      try part.hasOnly("pretokenizers")
      var steps: [PreTokenizer] = []
      for step in try part.parts("pretokenizers") { steps += try Self.steps(of: step) }
      return steps
    case "ByteLevel":
      try part.hasOnly("add_prefix_space", "trim_offsets", "use_regex")
      // Offsets into the text bear on no token.
      _ = try part.bool("trim_offsets")
      let pattern =
        try part.bool("use_regex", default: true) ? TextPattern(expression: Self.gpt2) : nil
      let addsSpace = try part.bool("add_prefix_space")
      return [.byteLevel(addsSpace: addsSpace, cutsBy: pattern), .byteCharacters]
    case "Split":
      try part.hasOnly("pattern", "behavior", "invert")
      let isInverted = try part.bool("invert")
      return [.split(try part.pattern(), try behavior(part), isInverted: isInverted)]
    case "Digits":
      try part.hasOnly("individual_digits")
      return [.digits(try part.bool("individual_digits") ? .isolated : .contiguous)]
    case "Metaspace": return [.metaspace(try Metaspace(part))]
    case "Punctuation":
      try part.hasOnly("behavior")
      return [.punctuation(part.json["behavior"] == nil ? .isolated : try behavior(part))]
    case "Whitespace":
      try part.hasOnly()
      return [.words]
    case "WhitespaceSplit":
      try part.hasOnly()
      return [.spaces]
    case "BertPreTokenizer":
      try part.hasOnly()
      return [.spaces, .punctuation(.isolated)]
    default: throw part.unknown
    }
  }

  /// The pattern of GPT-2's encoder.py.
  private static let gpt2 =
    #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#

  private static func behavior(_ part: Part) throws(PeftoolError) -> SplitBehavior {
    let name = try part.string("behavior")
    guard let behavior = SplitBehavior(rawValue: name) else {
      let known = SplitBehavior.allCases.map(\.rawValue).joined(separator: ", ")
      throw PeftoolError(
        .unsupported, "\(part.place).behavior is \"\(name.printable)\", peftool takes \(known)")
    }
    return behavior
  }

  /// Cuts pieces.
  ///
  /// - Throws: `unsupported` where a pattern takes too many steps, or the text becomes too long.
  func cut(_ pieces: inout Pieces, _ search: inout PatternSearch) throws(PeftoolError) {
    switch self {
    case .byteLevel(let addsSpace, let pattern):
      if addsSpace { try pieces.map { (piece, _) in piece.prependSpace() } }
      if let pattern { try Self.split(&pieces, .isolated, pattern, &search) }
    case .split(let pattern, let behavior, let isInverted):
      try Self.split(&pieces, behavior, isInverted: isInverted, pattern, &search)
    case .digits(let behavior):
      pieces.split(behavior) { $1.addEach(in: $0) { $0.isNumeric } }
    case .metaspace(let metaspace): try metaspace.cut(&pieces)
    case .punctuation(let behavior):
      pieces.split(behavior) { $1.addEach(in: $0) { $0.isPunctuation } }
    case .words: pieces.split(.removed, isInverted: true) { $1.addWords(in: $0) }
    case .spaces: pieces.split(.removed) { $1.addEach(in: $0) { $0.properties.isWhitespace } }
    case .byteCharacters:
      try pieces.map { (piece, _) in piece.map { ByteAlphabet.append($0, to: &$1) } }
    }
  }

  private static func split(
    _ pieces: inout Pieces, _ behavior: SplitBehavior, isInverted: Bool = false,
    _ pattern: TextPattern, _ search: inout PatternSearch
  ) throws(PeftoolError) {
    try pieces.split(behavior, isInverted: isInverted) { (text, cuts) throws(PeftoolError) in
      try pattern.forEachMatch(in: text, &search) { cuts.add($0) }
    }
  }
}

extension NormalizedText {
  fileprivate mutating func prependSpace() {
    let space = UInt8(ascii: " ")
    if bytes.first != space { prepend([space]) }
  }
}
