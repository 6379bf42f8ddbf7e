package import Files
import JSON
import Patterns

/// Text to the numbers of a model's tokens and back, as a `tokenizer.json` says.
///
/// Numbers and text are those of the `tokenizers` library 0.23; Formats/tokenizer-json.md tells
/// what is read. A tokenizer may be used from several threads at once.
package struct Tokenizer: Sendable {
  private let model: BytePairEncoding
  private let added: AddedVocabulary
  private let normalizer: [Normalizer]
  private let preTokenizer: [PreTokenizer]
  private let postProcessor: PostProcessor
  let decoder: [Decoder]
  private let caches = WordCaches()

  /// Reads a `tokenizer.json`.
  ///
  /// - Throws: `io`; `damaged` where the file contradicts its format; `unsupported` where it has a
  ///   part that peftool does not know; with the path.
  package init(contentsOf path: String) throws(PeftoolError) {
    let file = try TokenizerFile(opening: path)
    do throws(PeftoolError) {
      try self.init(file)
    } catch {
      throw error.at(path: path)
    }
  }

  /// Reads the text of a `tokenizer.json`.
  ///
  /// - Throws: as `init(contentsOf:)`, without a path.
  package init(parsing bytes: [UInt8]) throws(PeftoolError) {
    try self.init(TokenizerFile(parsing: bytes))
  }

  private init(_ file: TokenizerFile) throws(PeftoolError) {
    try Self.checkMembers(file)
    let normalizer = try Self.steps("normalizer", of: file, Normalizer.steps) ?? []
    var steps = try Self.steps("pre_tokenizer", of: file, PreTokenizer.steps) ?? []
    // Where the last step turns bytes into characters, the model takes the bytes themselves.
    var isByteLevel = false
    if case .byteCharacters = steps.last {
      steps.removeLast()
      isByteLevel = true
    }
    model = try BytePairEncoding(file, isByteLevel: isByteLevel)
    var growth = GrowthBudget(of: "normalizer", byteCount: AddedVocabulary.maximumByteCount)
    var search = try PatternSearch(textByteCount: AddedVocabulary.maximumByteCount)
    added = try AddedVocabulary(file.addedTokens, model.tokens) { (text) throws(PeftoolError) in
      var normalized = NormalizedText(text, isFirst: true, growth: growth)
      defer { growth = normalized.growth }
      for step in normalizer { try step.normalize(&normalized, &search) }
      return normalized.bytes
    }
    self.normalizer = normalizer
    preTokenizer = steps
    postProcessor =
      try Self.part("post_processor", of: file).map {
        (part) throws(PeftoolError) in try PostProcessor(part)
      } ?? PostProcessor()
    decoder = try Self.steps("decoder", of: file, Decoder.steps) ?? [.map(.spaced)]
  }

  private static func checkMembers(_ file: TokenizerFile) throws(PeftoolError) {
    // truncation and padding are settings of the program that saved the file: transformers sets
    // both anew at every call.
    let known = [
      "version", "truncation", "padding", "normalizer", "pre_tokenizer", "post_processor",
      "decoder",
    ]
    if let other = file.members.keys.sorted().first(where: { !known.contains($0) }) {
      throw PeftoolError(.unsupported, "\"\(other.printable)\" is nothing that peftool knows")
    }
    guard file.members["version"] == nil || file["version"] == .string("1.0") else {
      throw PeftoolError(
        .unsupported, "version is \(file["version"].summary), expected \"1.0\"")
    }
    try PartLimits.check(
      ["normalizer", "pre_tokenizer", "decoder"].map { (name: $0, json: file[$0]) })
  }

  private static func steps<Step>(
    _ key: String, of file: TokenizerFile, _ read: (Part) throws(PeftoolError) -> [Step]
  ) throws(PeftoolError) -> [Step]? {
    guard let part = try part(key, of: file) else { return nil }
    let steps = try read(part)
    // Some parts are two steps.
    try PartLimits.check(stepCount: steps.count, of: key)
    return steps
  }

  private static func part(
    _ key: String, of file: TokenizerFile
  ) throws(PeftoolError) -> Part? {
    file[key] == .null ? nil : try Part(file[key], at: key)
  }

  /// The largest number of a token and one, added tokens included.
  package var vocabularySize: Int {
    max(model.tokens.idLimit, Int(added.tokens.keys.max() ?? -1) + 1)
  }

  /// The number of a token, added or of the model.
  package func id(of token: String) -> Int32? {
    added.id(of: token) ?? model.tokens.id(of: Array(token.utf8).span)
  }

  /// The token of a number as it stands in the file; nil where no token has it.
  package func token(_ id: Int32) -> String? {
    added.tokens[id]?.token
      ?? model.tokens.text(of: id).map { String(decoding: $0, as: UTF8.self) }
  }

  /// Whether a token steers the model rather than being text, and is left out by
  /// `skippingSpecialTokens`.
  package func isSpecial(_ id: Int32) -> Bool {
    added.specialIDs.contains(id)
  }

  /// The special tokens that are put behind every text.
  package var tokensBehindText: [Int32] { postProcessor.tokensBehindText }

  /// Adds what decoders begin with: the token, or what the normalizer makes of an added one.
  ///
  /// - Returns: whether there is one.
  func appendDecodedText(of id: Int32, to texts: inout TokenTexts) -> Bool {
    if let text = added.text(of: id) {
      texts.append(text.span)
    } else if let text = model.tokens.text(of: id) {
      texts.append(text.span)
    } else {
      return false
    }
    return true
  }

  /// The numbers of a text's tokens.
  ///
  /// - Throws: `unsupported` where a pattern of the file takes too many steps on this text, or the
  ///   text is too long; `damaged` where a character is no token and `unk_token` is none either.
  package func encode(
    _ text: String, addingSpecialTokens: Bool = true
  ) throws(PeftoolError) -> [Int32] {
    try encode(checked: Array(text.utf8), addingSpecialTokens)
  }

  /// The numbers of the tokens of a text that should be UTF-8.
  ///
  /// - Throws: as `encode(_:)`, and `damaged` with the offset of what is no UTF-8.
  package func encode(
    bytes: [UInt8], addingSpecialTokens: Bool = true
  ) throws(PeftoolError) -> [Int32] {
    try Self.check(bytes)
    try bytes.checkUTF8()
    return try encode(checked: bytes, addingSpecialTokens)
  }

  /// The numbers of a text's tokens, without those around it, and where each token ends.
  ///
  /// - Throws: as `encode(_:)`.
  package func encodeWithEnds(_ text: String) throws(PeftoolError) -> TokenEnds {
    var ends: TokenEnds? = TokenEnds()
    let ids = try tokens(of: Array(text.utf8), limit: Self.maximumTokenCount, &ends)
    var result = ends ?? TokenEnds()
    result.ids = ids
    return result
  }

  /// The text that numbers of tokens stand for.
  ///
  /// - Throws: `damaged` for a number that no token has, `unsupported` where a pattern of the
  ///   decoder takes too many steps, or the decoder makes the text too long.
  package func decode(
    _ ids: some Sequence<Int32>, skippingSpecialTokens: Bool = false
  ) throws(PeftoolError) -> String {
    var stream = TextStream(self, skippingSpecialTokens: skippingSpecialTokens)
    var text: [UInt8] = []
    try stream.push(contentsOf: ids, to: &text)
    try stream.finish(to: &text)
    return String(decoding: text, as: UTF8.self)
  }
}

// MARK: - Encoding

extension Tokenizer {
  /// The most bytes of a text, and of what normalizer and pre-tokenizer make of each part of it that
  /// lies between added tokens.
  package static let maximumTextByteCount = 1 << 28

  /// The most tokens of a text: one for each byte of the longest.
  package static let maximumTokenCount = maximumTextByteCount

  /// - Throws: `unsupported` where a text has become too many tokens.
  static func check(tokenCount: Int, limit: Int) throws(PeftoolError) {
    guard tokenCount <= limit else {
      throw PeftoolError(.unsupported, "a text of more than \(limit) tokens")
    }
  }

  private static func check(_ text: [UInt8]) throws(PeftoolError) {
    guard text.count <= maximumTextByteCount else {
      throw PeftoolError(
        .unsupported,
        "a text of \(text.count) bytes, expected at most \(maximumTextByteCount)")
    }
  }

  /// Encodes UTF-8 to so many tokens at most.
  func encode(
    checked text: [UInt8], _ addingSpecialTokens: Bool, limit: Int = maximumTokenCount
  ) throws(PeftoolError) -> [Int32] {
    var ends: TokenEnds?
    return try postProcessor.process(
      try tokens(of: text, limit: limit, &ends), addingSpecialTokens: addingSpecialTokens,
      limit: limit)
  }

  /// The tokens of UTF-8, and where they end, if that is asked for.
  private func tokens(
    of text: [UInt8], limit: Int, _ ends: inout TokenEnds?
  ) throws(PeftoolError) -> [Int32] {
    try Self.check(text)
    var ids: [Int32] = []
    var work = Work(
      cache: caches.take(), search: try PatternSearch(textByteCount: text.count),
      growth: GrowthBudget(of: "normalizer and pre_tokenizer", byteCount: text.count),
      limit: limit, ends: ends)
    try added.forEachPart(of: text.span, by: added.plain) { (range, id) throws(PeftoolError) in
      if let id {
        work.ends?.append(byteCount: range.count)
        return ids.append(id)
      }
      let part = range.count == text.count ? text : Array(text[range])
      let normalized = NormalizedText(
        part, isFirst: range.lowerBound == 0, growth: work.growth)
      try append(normalized, to: &ids, &work)
    }
    caches.put(back: work.cache)
    ends = work.ends
    return ids
  }

  /// What an encoding needs beside the tokenizer.
  private struct Work: ~Copyable {
    var cache: WordCache
    var symbols = Symbols()
    var search: PatternSearch
    var growth: GrowthBudget
    let limit: Int
    var ends: TokenEnds?

    init(
      cache: WordCache, search: consuming PatternSearch, growth: GrowthBudget, limit: Int,
      ends: TokenEnds?
    ) {
      self.ends = ends
      self.limit = limit
      self.cache = cache
      self.search = search
      self.growth = growth
    }
  }

  /// Appends the tokens of a part of the text that has no plain added token in it.
  private func append(
    _ part: NormalizedText, to ids: inout [Int32], _ work: inout Work
  ) throws(PeftoolError) {
    var text = part
    for step in normalizer { try step.normalize(&text, &work.search) }
    try Self.check(text.bytes)
    work.growth = text.growth
    let bytes = text.bytes
    try added.forEachPart(of: bytes.span, by: added.normalized) {
      (range, id) throws(PeftoolError) in
      if let id {
        work.ends?.append(byteCount: range.count)
        return ids.append(id)
      }
      var pieces = Pieces(NormalizedText(text, range, growth: work.growth))
      for step in preTokenizer { try step.cut(&pieces, &work.search) }
      try Self.check(pieces.text.bytes)
      work.growth = pieces.text.growth
      for piece in pieces.ranges {
        let word = pieces.text.bytes.span.extracting(piece)
        try Self.check(tokenCount: ids.count, limit: work.limit)
        let start = ids.count
        if !work.cache.append(word, to: &ids) {
          try model.append(word, to: &ids, &work.symbols, limit: work.limit)
          work.cache.insert(word, ids[start...])
        }
        guard work.ends != nil else { continue }
        work.ends?.append(
          piece, byteCounts: model.byteCounts(of: ids[start...], wordByteCount: piece.count))
      }
      work.ends?.byteCount += pieces.text.bytes.count
    }
  }
}
