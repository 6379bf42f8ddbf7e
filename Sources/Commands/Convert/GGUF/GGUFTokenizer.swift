import Checkpoints
import Files
import JSON

/// A GGUF model's tokenizer as `tokenizer.json` and `tokenizer_config.json`.
///
/// The vocabulary, the merges and the special tokens are the file's; how text is cut before that,
/// which the file only names, is what the named models' own `tokenizer.json` has.
struct GGUFTokenizer {
  /// llama.cpp's kinds of tokens.
  private enum Kind: Int {
    case normal = 1, unknown, control, userDefined, unused, byte
  }

  private let metadata: GGUFMetadata
  private let tokens: [String]
  private let kinds: [Kind]
  private let isSentencePiece: Bool
  private let preTokenizer: PreTokenizer
  let special: SpecialTokens

  private static let prefix = "tokenizer.ggml."

  /// Reads the tokenizer's metadata.
  ///
  /// - Throws: `unsupported` for a kind of tokenizer, or of cutting, that peftool does not know;
  ///   `damaged`.
  init(_ metadata: GGUFMetadata) throws(PeftoolError) {
    self.metadata = metadata
    guard let tokens = try metadata.texts(Self.prefix + "tokens") else {
      throw PeftoolError(.unsupported, "has no tokenizer, expected \(Self.prefix)tokens")
    }
    self.tokens = tokens
    let model = try metadata.text(Self.prefix + "model") ?? ""
    guard model == "gpt2" || model == "llama" else {
      throw PeftoolError(
        .unsupported,
        "its tokenizer is \"\(model.printable)\", expected gpt2 (BPE) or llama (SentencePiece)")
    }
    isSentencePiece = model == "llama"
    preTokenizer = try PreTokenizer(
      isSentencePiece ? "default" : metadata.text(Self.prefix + "pre") ?? "default")
    special = try SpecialTokens(metadata, count: tokens.count)
    var kinds = Array(repeating: Kind.normal, count: tokens.count)
    if let numbers = try metadata.ints(Self.prefix + "token_type") {
      guard numbers.count == tokens.count else {
        throw PeftoolError(
          .damaged,
          "\(Self.prefix)token_type has \(numbers.count) elements, expected \(tokens.count)")
      }
      for (place, number) in numbers.enumerated() {
        guard let kind = Kind(rawValue: number) else {
          throw PeftoolError(
            .damaged, "token \(place) is of type \(number), expected 1 to 6")
        }
        kinds[place] = kind
      }
    }
    self.kinds = kinds
  }

  // MARK: tokenizer.json

  /// The text of `tokenizer.json`.
  ///
  /// - Throws: `damaged` where a token stands twice, or a merge's parts are no tokens.
  func json() throws(PeftoolError) -> JSON {
    var ids: [ExactName: Int] = [:]
    ids.reserveCapacity(tokens.count)
    var vocabulary: [JSON.Member] = []
    for (id, token) in tokens.enumerated() where !isPadding(id) {
      guard ids.updateValue(id, forKey: ExactName(token)) == nil else {
        throw PeftoolError(
          .damaged, "token \(id), \"\(token.printable)\", stands twice in the vocabulary")
      }
      vocabulary.append(.init(token, .number(id)))
    }
    let merges = try merges(ids)
    return .object([
      .init("version", .string("1.0")),
      .init("truncation", .null),
      .init("padding", .null),
      .init("added_tokens", .array(addedTokens)),
      .init("normalizer", preTokenizer.normalizer),
      .init("pre_tokenizer", try cutting()),
      .init("post_processor", try framing()),
      .init("decoder", try joining()),
      .init(
        "model",
        .object([
          .init("type", .string("BPE")),
          .init("dropout", .null),
          .init("unk_token", unknownToken),
          .init("continuing_subword_prefix", .null),
          .init("end_of_word_suffix", .null),
          .init("fuse_unk", .bool(isSentencePiece)),
          .init("byte_fallback", .bool(isSentencePiece)),
          .init("ignore_merges", .bool(preTokenizer.ignoresMerges)),
          .init("vocab", .object(vocabulary)),
          .init(
            "merges",
            .array(merges.map { .array([.string(tokens[$0.left]), .string(tokens[$0.right])]) })),
        ])),
    ])
  }

  /// Rows of the embedding without a token, which llama.cpp's converter has given names.
  private func isPadding(_ id: Int) -> Bool {
    kinds[id] == .unused && tokens[id] == "[PAD\(id)]"
  }

  private var unknownToken: JSON {
    guard isSentencePiece, let id = special["unk"] else { return .null }
    return .string(tokens[id])
  }

  private var addedTokens: [JSON] {
    tokens.indices.compactMap { id in
      let isSpecial = kinds[id] == .control || (isSentencePiece && kinds[id] == .unknown)
      guard isSpecial || kinds[id] == .userDefined else { return nil }
      return .object([
        .init("id", .number(id)),
        .init("content", .string(tokens[id])),
        .init("single_word", .bool(false)),
        .init("lstrip", .bool(false)),
        .init("rstrip", .bool(false)),
        .init("normalized", .bool(false)),
        .init("special", .bool(isSpecial)),
      ])
    }
  }

  // MARK: Merges

  private typealias Merge = (left: Int, right: Int)

  private func merges(_ ids: [ExactName: Int]) throws(PeftoolError) -> [Merge] {
    guard let texts = try metadata.texts(Self.prefix + "merges") else {
      guard isSentencePiece else {
        throw PeftoolError(.damaged, "has no \(Self.prefix)merges")
      }
      return try mergesByScore(ids)
    }
    var merges: [Merge] = []
    merges.reserveCapacity(texts.count)
    for (place, text) in texts.enumerated() {
      // The first character may be a space, but not a part's end.
      let parts = text.utf8.split(
        separator: UInt8(ascii: " "), maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2, let left = ids[ExactName(String(Substring(parts[0])))],
        let right = ids[ExactName(String(Substring(parts[1])))],
        ids[ExactName(tokens[left] + tokens[right])] != nil
      else {
        throw PeftoolError(
          .damaged, "merge \(place), \"\(text.printable)\", is none of two tokens to a third")
      }
      merges.append((left, right))
    }
    return merges
  }

  /// The merges that a SentencePiece vocabulary stands for: each way to make a token of two, the
  /// best score first, as transformers derives them.
  private func mergesByScore(_ ids: [ExactName: Int]) throws(PeftoolError) -> [Merge] {
    guard let scores = try metadata.numbers(Self.prefix + "scores"), scores.count == tokens.count
    else {
      throw PeftoolError(
        .damaged, "has no \(Self.prefix)scores for each of its \(tokens.count) tokens")
    }
    var found: [(merge: Merge, score: Double, leftCount: Int, rightCount: Int)] = []
    for (place, token) in tokens.enumerated() where kinds[place] == .normal {
      let scalars = Array(token.unicodeScalars)
      guard scalars.count <= Self.longestToken else { continue }
      var ways: [(merge: Merge, score: Double, leftCount: Int, rightCount: Int)] = []
      for count in 1..<max(1, scalars.count) {
        func id(_ part: ArraySlice<Unicode.Scalar>) -> Int? {
          let id = ids[ExactName(String(String.UnicodeScalarView(part)))]
          return id.flatMap { kinds[$0] == .normal ? $0 : nil }
        }
        guard let left = id(scalars[..<count]), let right = id(scalars[count...]) else { continue }
        ways.append(((left, right), scores[place], count, scalars.count - count))
      }
      ways.sort { ($0.merge.left, $0.merge.right) < ($1.merge.left, $1.merge.right) }
      found += ways
    }
    // Swift's sort is stable, as is Python's.
    found.sort {
      ($0.score, $0.leftCount, $0.rightCount) > ($1.score, $1.leftCount, $1.rightCount)
    }
    return found.map(\.merge)
  }

  /// A token of a megabyte is no word; its parts would take a terabyte.
  private static let longestToken = 1000

  // MARK: Before and after

  private func cutting() throws(PeftoolError) -> JSON {
    guard isSentencePiece else { return preTokenizer.json }
    return .object([
      .init("type", .string("Metaspace")),
      .init("replacement", .string("▁")),
      .init("prepend_scheme", .string(try addsSpace() ? "first" : "never")),
      .init("split", .bool(false)),
    ])
  }

  private func addsSpace() throws(PeftoolError) -> Bool {
    try metadata.bool(Self.prefix + "add_space_prefix") ?? true
  }

  private func joining() throws(PeftoolError) -> JSON {
    guard isSentencePiece else {
      return .object([
        .init("type", .string("ByteLevel")), .init("add_prefix_space", .bool(true)),
        .init("trim_offsets", .bool(true)), .init("use_regex", .bool(true)),
      ])
    }
    var decoders: [JSON] = [
      .object([
        .init("type", .string("Replace")),
        .init("pattern", .object([.init("String", .string("▁"))])),
        .init("content", .string(" ")),
      ]),
      .object([.init("type", .string("ByteFallback"))]),
      .object([.init("type", .string("Fuse"))]),
    ]
    if try addsSpace() {
      decoders.append(
        .object([
          .init("type", .string("Strip")), .init("content", .string(" ")),
          .init("start", .number(1)), .init("stop", .number(0)),
        ]))
    }
    return .object([.init("type", .string("Sequence")), .init("decoders", .array(decoders))])
  }

  /// Whether a token begins each text; where the file does not say, what llama.cpp does.
  private func addsBOS() throws(PeftoolError) -> Bool {
    let isAdded = try metadata.bool(Self.prefix + "add_bos_token")
    return (isAdded ?? (isSentencePiece || preTokenizer.addsBOS)) && special["bos"] != nil
  }

  private func addsEOS() throws(PeftoolError) -> Bool {
    try metadata.bool(Self.prefix + "add_eos_token") ?? false && special["eos"] != nil
  }

  /// The tokens around a text and around a pair of them.
  private func framing() throws(PeftoolError) -> JSON {
    let first = try addsBOS() ? special["bos"] : nil
    let last = try addsEOS() ? special["eos"] : nil
    func frame(_ sequence: String, _ type: Int) -> [JSON] {
      func token(_ id: Int) -> JSON {
        .object([
          .init(
            "SpecialToken",
            .object([.init("id", .string(tokens[id])), .init("type_id", .number(type))]))
        ])
      }
      let text: JSON = .object([
        .init(
          "Sequence",
          .object([.init("id", .string(sequence)), .init("type_id", .number(type))]))
      ])
      return [first.map(token), text, last.map(token)].compactMap { $0 }
    }
    let used = Set([first, last].compactMap { $0 }).sorted()
    return .object([
      .init("type", .string("TemplateProcessing")),
      .init("single", .array(frame("A", 0))),
      .init("pair", .array(frame("A", 0) + frame("B", 1))),
      .init(
        "special_tokens",
        .object(
          used.map { id in
            .init(
              tokens[id],
              .object([
                .init("id", .string(tokens[id])), .init("ids", .array([.number(id)])),
                .init("tokens", .array([.string(tokens[id])])),
              ]))
          })),
    ])
  }

  // MARK: tokenizer_config.json

  /// The text of `tokenizer_config.json`, the chat template in it.
  func configuration(contextLength: Int) throws(PeftoolError) -> JSON {
    var members: [JSON.Member] = [
      .init("add_bos_token", .bool(try addsBOS())),
      .init("add_eos_token", .bool(try addsEOS())),
    ]
    members += special.names(tokens)
    members += [
      .init("clean_up_tokenization_spaces", .bool(false)),
      .init("model_max_length", .number(contextLength)),
      .init("tokenizer_class", .string("PreTrainedTokenizerFast")),
    ]
    if let template = try metadata.text("tokenizer.chat_template") {
      members.append(.init("chat_template", .string(template)))
    }
    return .object(members)
  }
}
