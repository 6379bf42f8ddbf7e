import Checkpoints
import Files
import JSON
import Tokenizers

/// A Hugging Face tokenizer as the metadata of a GGUF file: the mirror of `GGUFTokenizer`.
///
/// What llama.cpp's converter makes of `tokenizer.json` and `tokenizer_config.json`; where the two
/// part, Formats/gguf.md says so.
struct TokenizerFields {
  let file: TokenizerFile
  /// What `tokenizer_config.json` and `config.json` say.
  let settings: JSON
  let config: JSON
  let template: JSON?
  let isLlama: Bool
  let isSentencePiece: Bool
  /// Nil for a SentencePiece vocabulary.
  let preTokenizer: PreTokenizer?
  let tokens: [String]
  private let kinds: [GGUFTokenizer.Kind]

  static let prefix = GGUFTokenizer.prefix

  /// Reads the tokenizer beside a model's `config.json`.
  ///
  /// - Throws: `io`, `damaged`; `unsupported` where there is no `tokenizer.json`, and for a kind
  ///   of tokenizer that peftool does not know; with the path.
  init(
    inFolder folder: String, config: JSON, _ architecture: GGUFArchitecture
  ) throws(PeftoolError) {
    let path = Folder.path(folder, "tokenizer.json")
    guard Folder.exists(path) else {
      throw PeftoolError(
        .unsupported,
        "has no tokenizer.json, which transformers writes with "
          + "AutoTokenizer.from_pretrained(…).save_pretrained(…)", path: folder)
    }
    file = try TokenizerFile(opening: path)
    let settingsPath = Folder.path(folder, "tokenizer_config.json")
    settings = Folder.exists(settingsPath) ? try JSON(opening: settingsPath) : .object([])
    self.config = config
    template = try Self.template(settings, inFolder: folder)
    isLlama = architecture.family.architecture == "llama"
    do throws(PeftoolError) {
      isSentencePiece = file.model("byte_fallback") == .bool(true)
      if isSentencePiece {
        try Self.checkSentencePiece(file)
        preTokenizer = nil
      } else {
        preTokenizer = try PreTokenizer(
          normalizer: file["normalizer"], cutting: file["pre_tokenizer"],
          ignoresMerges: file.model("ignore_merges") == .bool(true))
      }
      (tokens, kinds) = try Self.tokens(
        file, count: architecture.vocabularySize, isSentencePiece: isSentencePiece)
    } catch {
      throw error.at(path: path)
    }
  }

  /// The pairs of metadata.
  ///
  /// - Throws: `damaged` where a setting is not of its type.
  func fields() throws(PeftoolError) -> [GGUFField] {
    var fields: [GGUFField] = []
    if let adds = try addsSpace() {
      fields.append(.bool(Self.prefix + "add_space_prefix", adds))
    }
    fields += [
      .text(Self.prefix + "model", isSentencePiece ? "llama" : "gpt2"),
      .text(Self.prefix + "pre", preTokenizer?.name ?? "default"),
      .texts(Self.prefix + "tokens", tokens),
    ]
    if isSentencePiece {
      fields.append(
        .array(
          Self.prefix + "scores", .f32, try scores().map { .number($0, isSingle: true) }))
    }
    fields.append(
      .array(
        Self.prefix + "token_type", .i32, kinds.map { .signed(Int64($0.rawValue)) }))
    if !isSentencePiece, !file.merges.isEmpty {
      fields.append(
        .texts(
          Self.prefix + "merges",
          file.merges.map { Self.spelt($0.left) + " " + Self.spelt($0.right) }))
    }
    let special = try special()
    fields += special.map { .u32(Self.prefix + $0.key, $0.id) }
    for (name, adds) in try adds(special.map(\.key)) {
      fields.append(.bool(Self.prefix + "add_\(name)_token", adds))
    }
    fields += try templates()
    return fields
  }

  // MARK: Vocabulary

  /// A SentencePiece vocabulary has no other way of cutting text than this.
  private static func checkSentencePiece(_ file: TokenizerFile) throws(PeftoolError) {
    guard file["decoder"]["type"] == .string("Sequence") else {
      throw PeftoolError(
        .unsupported,
        "has byte_fallback, and a decoder other than that of a SentencePiece vocabulary")
    }
    let cutting = file["pre_tokenizer"]
    guard cutting == .null || cutting["type"] == .string("Metaspace") else {
      throw PeftoolError(
        .unsupported,
        "has byte_fallback, and a pre_tokenizer other than that of a SentencePiece vocabulary")
    }
  }

  private static func tokens(
    _ file: TokenizerFile, count: Int, isSentencePiece: Bool
  ) throws(PeftoolError) -> ([String], [GGUFTokenizer.Kind]) {
    guard count <= TokenizerFile.maximumTokenCount else {
      throw PeftoolError(
        .unsupported,
        "vocab_size is \(count), expected at most \(TokenizerFile.maximumTokenCount)")
    }
    var tokens = [String?](repeating: nil, count: count)
    var kinds = [GGUFTokenizer.Kind](repeating: .unused, count: count)
    var names: Set<ExactName> = []
    func place(_ token: String, _ id: Int) throws(PeftoolError) {
      guard id < count else {
        throw PeftoolError(
          .different, "token \"\(token.printable)\" has the number \(id), vocab_size is \(count)")
      }
      if let other = tokens[id], !other.isExactly(token) {
        throw PeftoolError(
          .damaged,
          "\"\(other.printable)\" and \"\(token.printable)\" have the same number, \(id)")
      }
    }
    for (token, id) in file.vocabulary {
      try place(token, id)
      guard tokens[id] == nil, names.insert(ExactName(token)).inserted else {
        throw PeftoolError(.damaged, "token \"\(token.printable)\" stands twice")
      }
      tokens[id] = token
      kinds[id] = isSentencePiece && isByte(token) ? .byte : .normal
    }
    let unknown = file.model("unk_token")
    for added in file.addedTokens {
      try place(added.token, added.id)
      guard tokens[added.id] != nil || names.insert(ExactName(added.token)).inserted else {
        throw PeftoolError(.damaged, "token \"\(added.token.printable)\" has two numbers")
      }
      let isControl = added.isSpecial || looksSpecial(added.token)
      // llama.cpp searches a text for them as they would be decoded.
      tokens[added.id] =
        isControl ? added.token : added.token.replacing("\u{2581}", with: " ")
      kinds[added.id] = isControl ? .control : .userDefined
    }
    if isSentencePiece, case .string(let unknown) = unknown,
      let id = file.vocabulary.first(where: { $0.token.isExactly(unknown) })?.id
    {
      kinds[id] = .unknown
    }
    return (tokens.enumerated().map { $1 ?? "[PAD\($0)]" }, kinds)
  }

  private static func isByte(_ token: String) -> Bool {
    token.wholeMatch(of: /<0x[0-9A-Fa-f]{2}>/) != nil
  }

  /// What llama.cpp's converter takes for special whatever the file says
  /// (`does_token_look_special`).
  private static func looksSpecial(_ token: String) -> Bool {
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(token)
      || token.hasPrefix("<|") && token.hasSuffix("|>")
      || token.hasPrefix("<\u{FF5C}") && token.hasSuffix("\u{FF5C}>")
      || token.hasPrefix("<unused") && token.hasSuffix(">")
  }

  /// A part of a merge; a space, which would end it, as GPT-2 spells that byte.
  private static func spelt(_ part: String) -> String {
    part.utf8.contains(UInt8(ascii: " ")) ? part.replacing(" ", with: "\u{120}") : part
  }

  /// Scores that put the merges into their order: SentencePiece has them, and llama.cpp merges by
  /// them.
  ///
  /// The token of the first merge has 0, that of the next other one −1 and so on, then come those
  /// that no merge makes; tokens that are not searched for by merging have 0, user-defined ones
  /// −1000, fillers −10000, as in llama.cpp's converter of `tokenizer.model`.
  private func scores() throws(PeftoolError) -> [Double] {
    var ids: [ExactName: Int] = [:]
    for (id, token) in tokens.enumerated() where kinds[id] == .normal { ids[ExactName(token)] = id }
    var scores = [Double?](repeating: nil, count: tokens.count)
    var rank = 0
    for merge in file.merges {
      guard let id = ids[ExactName(merge.left + merge.right)] else {
        throw PeftoolError(
          .damaged,
          "merge \"\(merge.left.printable)\" + \"\(merge.right.printable)\" makes no token")
      }
      guard scores[id] == nil else { continue }
      scores[id] = rank == 0 ? 0 : -Double(rank)
      rank += 1
    }
    return tokens.indices.map { id in
      switch kinds[id] {
      case .normal:
        if let score = scores[id] { return score }
        rank += 1
        return -Double(rank - 1)
      case .userDefined: return -1000
      case .unused: return -10000
      case .unknown, .control, .byte: return 0
      }
    }
  }

  /// Whether a space goes before each text; nil where the file need not say.
  private func addsSpace() throws(PeftoolError) -> Bool? {
    if isLlama, let value = settings["add_prefix_space"], value != .null {
      return try value.bool(named: "add_prefix_space")
    }
    guard isSentencePiece else { return nil }
    let scheme = file["pre_tokenizer"]["prepend_scheme"]
    let prepends = Self.steps(file["normalizer"], "normalizers").contains {
      $0["type"] == .string("Prepend")
    }
    let adds = prepends || scheme == .string("first") || scheme == .string("always")
    return adds ? nil : false
  }

  static func steps(_ json: JSON, _ key: String) -> [JSON] {
    if case .array(let steps) = json[key] { steps } else { [json] }
  }
}
