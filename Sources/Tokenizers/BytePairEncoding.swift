import Files
import JSON

/// The model BPE: the tokens of a word, by merging pairs of neighbours, those of the lowest rank
/// first (`models/bpe` of the `tokenizers` library).
struct BytePairEncoding: Sendable {
  /// The model's tokens.
  let tokens: TokenTable
  private let merges: MergeTable
  /// The token for characters that are none, and its number; nil in the file or in the vocabulary.
  private let unknownToken: String?
  private let unknownID: Int32?
  private let fusesUnknown: Bool
  /// The numbers of `<0x00>` to `<0xFF>`, -1 for those missing; nil without byte fallback.
  private let fallbackIDs: [Int32]?
  private let ignoresMerges: Bool
  private let prefix: [UInt8]
  private let suffix: [UInt8]
  /// Whether words come as plain bytes, for which characters stand in the tokens.
  private let isByteLevel: Bool
  /// The number of each byte's character, -1 where it is no token.
  private let byteIDs: [Int32]
  /// The tokens that are all of such characters, as bytes; empty unless it is needed.
  private let byteTokens: TokenTable

  /// The most bytes of `continuing_subword_prefix` and of `end_of_word_suffix`.
  static let maximumAffixByteCount = 64

  /// - Throws: `damaged` where the file contradicts itself, `unsupported` for a member that peftool
  ///   does not know.
  init(_ file: TokenizerFile, isByteLevel: Bool) throws(PeftoolError) {
    let settings = try Settings(file)
    var tokens = TokenTable(capacity: file.vocabulary.count)
    for (token, id) in file.vocabulary {
      guard !tokens.contains(Int32(id)) else {
        throw PeftoolError(
          .damaged,
          "token \"\(token.printable)\" has the number \(id), which "
            + "another one has")
      }
      guard tokens.insert(Array(token.utf8).span, id: Int32(id)) else {
        throw PeftoolError(.damaged, "token \"\(token.printable)\" stands twice")
      }
    }
    self.tokens = tokens
    merges = try Self.merges(file.merges, tokens, prefixByteCount: settings.prefix.count)
    unknownToken = settings.unknownToken
    unknownID = settings.unknownToken.flatMap { tokens.id(of: Array($0.utf8).span) }
    fusesUnknown = settings.fusesUnknown
    fallbackIDs = settings.hasByteFallback ? Self.fallbackIDs(tokens) : nil
    ignoresMerges = settings.ignoresMerges
    prefix = settings.prefix
    suffix = settings.suffix
    self.isByteLevel = isByteLevel
    byteIDs = (0...255).map { byte in
      var character: [UInt8] = []
      ByteAlphabet.append([UInt8(byte)].span, to: &character)
      return tokens.id(of: character.span) ?? -1
    }
    byteTokens = isByteLevel && settings.ignoresMerges ? Self.byteTokens(file) : .init(capacity: 0)
  }

  private static func merges(
    _ pairs: [(left: String, right: String)], _ tokens: TokenTable, prefixByteCount: Int
  ) throws(PeftoolError) -> MergeTable {
    var merges = MergeTable(capacity: pairs.count)
    for (rank, pair) in pairs.enumerated() {
      let left = Array(pair.left.utf8)
      let right = Array(pair.right.utf8)
      func missing(_ token: String) -> PeftoolError {
        PeftoolError(
          .damaged,
          "merge \(rank) of \"\(pair.left.printable)\" and \"\(pair.right.printable)\": "
            + "\"\(token.printable)\" is not in vocab")
      }
      guard let leftID = tokens.id(of: left.span) else { throw missing(pair.left) }
      guard let rightID = tokens.id(of: right.span), right.count >= prefixByteCount else {
        throw missing(pair.right)
      }
      let whole = left + right.dropFirst(prefixByteCount)
      guard let token = tokens.id(of: whole.span) else {
        throw missing(String(decoding: whole, as: UTF8.self))
      }
      merges.set(leftID, rightID, rank: rank, token: token)
    }
    return merges
  }

  private static func fallbackIDs(_ tokens: TokenTable) -> [Int32] {
    (0...255).map { byte in
      let digits = String(byte, radix: 16, uppercase: true)
      let token = "<0x" + (byte < 16 ? "0" : "") + digits + ">"
      return tokens.id(of: Array(token.utf8).span) ?? -1
    }
  }

  private static func byteTokens(_ file: TokenizerFile) -> TokenTable {
    var table = TokenTable(capacity: file.vocabulary.count)
    for (token, id) in file.vocabulary {
      var bytes: [UInt8] = []
      if ByteAlphabet.appendBytes(of: Array(token.utf8).span, to: &bytes) {
        // No two tokens have the same bytes, as no two characters stand for the same byte.
        _ = table.insert(bytes.span, id: Int32(id))
      }
    }
    return table
  }

  /// Appends the numbers of a word's tokens; with those that are there already there may be at most
  /// `limit`, also before any are merged.
  ///
  /// - Throws: `damaged` where a character is no token, and `unk_token` is none either;
  ///   `unsupported` where there are more tokens.
  func append(
    _ word: Span<UInt8>, to ids: inout [Int32], _ symbols: inout Symbols, limit: Int
  ) throws(PeftoolError) {
    if ignoresMerges, let id = isByteLevel ? byteTokens.id(of: word) : tokens.id(of: word) {
      ids.append(id)
      return
    }
    symbols.removeAll()
    if !isByteLevel {
      try appendCharacters(of: word, to: &symbols, before: ids.count, limit)
    } else if !appendBytes(of: word, to: &symbols) {
      symbols.removeAll()
      var text: [UInt8] = []
      ByteAlphabet.append(word, to: &text)
      try appendCharacters(of: text.span, to: &symbols, before: ids.count, limit)
    }
    symbols.merge(by: merges)
    symbols.append(to: &ids)
  }

  /// Appends the tokens of single bytes; false where one is none, or has an affix.
  private func appendBytes(of word: Span<UInt8>, to symbols: inout Symbols) -> Bool {
    guard prefix.isEmpty, suffix.isEmpty else { return false }
    for index in word.indices {
      let id = byteIDs[Int(word[index])]
      guard id >= 0 else { return false }
      symbols.append(id)
    }
    return true
  }

  /// Appends the tokens of single characters: their own, those of their bytes, or the unknown one.
  ///
  /// As in `merge_word` of the `tokenizers` library an unknown token waits until the next character
  /// that is a token, and so stands after bytes that come before that. A character for which there
  /// is nothing at all is left out, as there.
  private func appendCharacters(
    of word: Span<UInt8>, to symbols: inout Symbols, before: Int, _ limit: Int
  ) throws(PeftoolError) {
    var isUnknownWaiting = false
    var place = 0
    var spelling: [UInt8] = []
    while place < word.count {
      let end = word.endOfCharacter(at: place)
      spelling.removeAll(keepingCapacity: true)
      if place > 0 { spelling += prefix }
      spelling.append(word, place..<end)
      if end == word.count { spelling += suffix }
      place = end
      try Tokenizer.check(tokenCount: before + symbols.count, limit: limit)
      if let id = tokens.id(of: spelling.span) {
        if isUnknownWaiting, let unknownID { symbols.append(unknownID) }
        isUnknownWaiting = false
        symbols.append(id)
      } else if let fallbackIDs, spelling.allSatisfy({ fallbackIDs[Int($0)] >= 0 }) {
        for byte in spelling { symbols.append(fallbackIDs[Int(byte)]) }
      } else if let unknownToken {
        guard let unknownID else {
          throw PeftoolError(
            .damaged,
            "unk_token \"\(unknownToken.printable)\" is not in vocab, and "
              + "\"\(String(decoding: spelling, as: UTF8.self).printable)\" is no token")
        }
        if isUnknownWaiting, !fusesUnknown { symbols.append(unknownID) }
        isUnknownWaiting = true
      }
    }
    if isUnknownWaiting, let unknownID { symbols.append(unknownID) }
  }

  /// How many of a word's bytes each of its tokens stands for.
  func byteCounts(of ids: ArraySlice<Int32>, wordByteCount: Int) -> [Int] {
    var counts: [Int] = []
    var unknown: Int?
    for (place, id) in ids.enumerated() {
      if id == unknownID { unknown = unknown ?? place }
      counts.append(id == unknownID ? 0 : byteCount(of: id, isFirst: place == 0))
    }
    if let unknown { counts[unknown] = max(0, wordByteCount - counts.reduce(0, +)) }
    return counts
  }

  private func byteCount(of id: Int32, isFirst: Bool) -> Int {
    if let fallbackIDs, fallbackIDs.contains(id) { return 1 }
    guard let text = tokens.text(of: id) else { return 0 }
    // Of a character that stands for a byte the first byte counts; affixes stand for none. The
    // suffix is at the end of a word, where the rest of it is taken anyway.
    let count = isByteLevel ? text.count { $0 & 0xC0 != 0x80 } : text.count
    return max(0, isFirst ? count : count - prefix.count)
  }

  /// What the model says beside its tokens and merges.
  private struct Settings {
    let unknownToken: String?
    let fusesUnknown: Bool
    let hasByteFallback: Bool
    let ignoresMerges: Bool
    let prefix: [UInt8]
    let suffix: [UInt8]

    private static let known: Set = [
      "type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
      "byte_fallback", "ignore_merges",
    ]

    init(_ file: TokenizerFile) throws(PeftoolError) {
      if let other = file.modelMembers.keys.sorted().first(where: { !Self.known.contains($0) }) {
        throw PeftoolError(
          .unsupported, "model.\(other.printable) is nothing that peftool knows of \"BPE\"")
      }
      if file.model("dropout") != .null {
        let dropout = try file.model("dropout").double(named: "model.dropout")
        guard dropout == 0 else {
          throw PeftoolError(
            .unsupported,
            "model.dropout is \(dropout): other tokens each time; null is taken, and 0")
        }
      }
      func bool(_ key: String) throws(PeftoolError) -> Bool {
        file.model(key) == .null ? false : try file.model(key).bool(named: "model.\(key)")
      }
      func string(_ key: String) throws(PeftoolError) -> String? {
        file.model(key) == .null ? nil : try file.model(key).string(named: "model.\(key)")
      }
      func affix(_ key: String) throws(PeftoolError) -> [UInt8] {
        let affix = Array((try string(key) ?? "").utf8)
        guard affix.count <= BytePairEncoding.maximumAffixByteCount else {
          throw PeftoolError(
            .unsupported,
            "model.\(key) has \(affix.count) bytes, expected at most "
              + "\(BytePairEncoding.maximumAffixByteCount)")
        }
        return affix
      }
      unknownToken = try string("unk_token")
      fusesUnknown = try bool("fuse_unk")
      hasByteFallback = try bool("byte_fallback")
      ignoresMerges = try bool("ignore_merges")
      prefix = try affix("continuing_subword_prefix")
      suffix = try affix("end_of_word_suffix")
    }
  }
}
