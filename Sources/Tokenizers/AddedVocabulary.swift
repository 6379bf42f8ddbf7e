import Files

/// The tokens that a text is searched for before it is cut (`added_vocabulary.rs` of the
/// `tokenizers` library).
struct AddedVocabulary: Sendable {
  /// The added tokens by number; of several with one text the last counts.
  private(set) var tokens: [Int32: AddedToken] = [:]
  private var ids: [[UInt8]: Int32] = [:]
  /// What is looked for in the text as it is given, and in the normalized one.
  private(set) var plain = TokenSearch()
  private(set) var normalized = TokenSearch()
  /// What a normalizer has made of a token's text, where that is something else.
  private var normalizedTexts: [Int32: [UInt8]] = [:]
  /// The tokens that a decoder may be asked to leave out.
  private(set) var specialIDs: Set<Int32> = []

  /// The most bytes of all added tokens together, after the normalizer.
  static let maximumByteCount = 4 << 20

  /// - Throws: `damaged` where a number is not the one that the `tokenizers` library gives the
  ///   token, or where two tokens are the same to the search; `unsupported` where one is nothing
  ///   after the normalizer, or one or all are too long.
  init(
    _ added: [AddedToken], _ model: TokenTable,
    normalizing normalize: ([UInt8]) throws(PeftoolError) -> [UInt8]
  ) throws(PeftoolError) {
    var special: Set<[UInt8]> = []
    var nextID = Int32(model.count)
    for token in added { try token.check() }
    for token in added where !token.token.isEmpty {
      let text = Array(token.token.utf8)
      let known = ids[text] ?? model.id(of: text.span)
      // The library numbers new tokens from the count of the model's on, whatever the file says.
      let id = known ?? nextID
      if known == nil { nextID += 1 }
      guard id == token.id, known != nil || !model.contains(id) else {
        throw PeftoolError(
          .damaged,
          "added token \"\(token.token.printable)\" has the number \(token.id), the rest of the "
            + "file gives it \(id)\(known == nil && model.contains(id) ? ", another one's" : "")")
      }
      ids[text] = id
      tokens[id] = token
      if token.isSpecial { special.insert(text) }
      normalizedTexts[id] = nil
      if token.isNormalized {
        let normalized = try normalize(text)
        try token.check(normalized, "after the normalizer ")
        if normalized != text { normalizedTexts[id] = normalized }
      }
    }
    var byteCount = 0
    for (id, token) in tokens.sorted(by: { $0.key < $1.key }) {
      let text = normalizedTexts[id] ?? Array(token.token.utf8)
      byteCount += text.count
      guard byteCount <= Self.maximumByteCount else {
        throw PeftoolError(
          .unsupported,
          "the added tokens have more than \(Self.maximumByteCount) bytes together")
      }
      guard !text.isEmpty else {
        // The library then finds it between any two characters, and cuts the text there.
        throw PeftoolError(
          .unsupported,
          "the added token \"\(token.token.printable)\" is nothing after the normalizer")
      }
      let same = token.isNormalized ? normalized.insert(text, id: id) : plain.insert(text, id: id)
      if let same, let other = tokens[same] {
        throw PeftoolError(
          .damaged,
          "the added tokens \"\(other.token.printable)\" and \"\(token.token.printable)\" are the "
            + "same text after the normalizer")
      }
      if special.contains(text) { specialIDs.insert(id) }
    }
    // A token of the model is special if it has the text of a special token.
    for text in special {
      if let id = model.id(of: text.span), tokens[id] == nil { specialIDs.insert(id) }
    }
  }

  /// The number of an added token.
  func id(of token: String) -> Int32? {
    ids[Array(token.utf8)]
  }

  /// The text of a token as it is decoded: what the normalizer has made of it.
  func text(of id: Int32) -> [UInt8]? {
    tokens[id].map { normalizedTexts[id] ?? Array($0.token.utf8) }
  }

  /// Calls `body` with each part of a text from left to right: what lies between tokens, and the
  /// tokens' numbers.
  func forEachPart(
    of text: Span<UInt8>, by search: TokenSearch,
    _ body: (_ range: Range<Int>, _ id: Int32?) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    var end = 0
    var place = 0
    // White space that was gone over last: each run of it is gone over once.
    var space = 0..<0
    while let match = search.next(in: text, from: place) {
      place = match.range.upperBound
      guard let token = tokens[match.id] else { preconditionFailure("an unknown added token") }
      var (start, stop) = (match.range.lowerBound, match.range.upperBound)
      if token.isSingleWord {
        let isAfterWord = start > 0 && text.scalar(before: start).scalar.isWordCharacter
        let isBeforeWord = stop < text.count && text.scalar(at: stop).isWordCharacter
        guard !isAfterWord, !isBeforeWord else { continue }
      }
      if token.stripsLeft {
        // Space that went to the token before is not taken again.
        while start > end {
          let (scalar, before) = text.scalar(before: start)
          guard scalar.properties.isWhitespace else { break }
          start = before
        }
        start = max(start, end)
      }
      if token.stripsRight {
        let first = stop
        if space.contains(stop) { stop = space.upperBound }
        while stop < text.count, text.scalar(at: stop).properties.isWhitespace {
          stop = text.endOfCharacter(at: stop)
        }
        space = first..<stop
      }
      if end < start { try body(end..<start, nil) }
      // What another token has taken whole is no token any more.
      if start < stop { try body(start..<stop, match.id) }
      end = stop
    }
    if end < text.count { try body(end..<text.count, nil) }
  }
}
