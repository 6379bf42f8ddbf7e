import Files
import JSON

/// How a byte-level tokenizer cuts text before it merges: llama.cpp's names for it.
struct PreTokenizer {
  /// The name, of several that mean the same the one that was given.
  let name: String
  /// Whether a piece that is a token stays whole whatever the merges say.
  let ignoresMerges: Bool
  /// Whether llama.cpp puts `bos` before a text where the file does not say.
  let addsBOS: Bool
  /// The value of `normalizer` in `tokenizer.json`.
  let normalizer: JSON
  /// The value of `pre_tokenizer` in `tokenizer.json`.
  let json: JSON

  /// Knows a name of `tokenizer.ggml.pre`.
  ///
  /// - Throws: `unsupported` for a name that peftool does not know: another cut would give other
  ///   tokens.
  init(_ name: String) throws(PeftoolError) {
    var (ignoresMerges, addsBOS) = (false, false)
    switch name {
    case "gpt-2", "gpt2", "default", "mpt", "olmo", "jais", "trillion", "granite-docling":
      json = Self.byteLevel(cuts: true)
    case "smollm":
      // Digits one by one, as SmolLM's own tokenizer.json has it.
      json = Self.sequence([
        .object([.init("type", .string("Digits")), .init("individual_digits", .bool(true))]),
        Self.byteLevel(cuts: true),
      ])
    case "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0":
      json = Self.split(Self.llama3)
      (ignoresMerges, addsBOS) = (true, true)
    case "tekken":
      json = Self.split(Self.tekken)
      (ignoresMerges, addsBOS) = (true, true)
    case "qwen2", "deepseek-r1-qwen", "megrez": json = Self.split(Self.qwen2)
    default:
      throw PeftoolError(
        .unsupported,
        "tokenizer.ggml.pre is \"\(name.printable)\", a way of cutting text that peftool does not "
          + "know")
    }
    // Qwen's own tokenizer.json composes letters and accents; llama.cpp leaves them as they are.
    normalizer = name == "qwen2" ? .object([.init("type", .string("NFC"))]) : .null
    self.name = name
    self.ignoresMerges = ignoresMerges
    self.addsBOS = addsBOS
  }

  /// The names that are given to a tokenizer that is recognised.
  private static let written = [
    "gpt-2", "smollm", "llama-bpe", "tekken", "qwen2", "deepseek-r1-qwen",
  ]

  /// Recognises a `tokenizer.json` by its members `normalizer`, `pre_tokenizer` and
  /// `model.ignore_merges`.
  ///
  /// llama.cpp's converter goes by the tokens of one long text, and so by the vocabulary, too.
  /// - Throws: `unsupported` for a way of cutting that none of the names stands for.
  init(normalizer: JSON, cutting: JSON, ignoresMerges: Bool) throws(PeftoolError) {
    let (normalizer, cutting) = (Self.plain(normalizer), Self.plain(cutting))
    for name in Self.written {
      let known = try PreTokenizer(name)
      guard Self.plain(known.normalizer) == normalizer, Self.plain(known.json) == cutting,
        known.ignoresMerges == ignoresMerges
      else { continue }
      self = known
      return
    }
    throw PeftoolError(
      .unsupported,
      "its normalizer, pre_tokenizer and ignore_merges are those of no way of cutting text that "
        + "peftool has a llama.cpp name for; it knows \(Self.written.joined(separator: ", "))")
  }

  /// A value without what makes no difference to tokens: the order of members, defaults, offsets,
  /// and sequences of one.
  private static func plain(_ json: JSON) -> JSON {
    switch json {
    case .object(let members):
      let type = json["type"]
      for key in ["pretokenizers", "normalizers"] {
        guard type == .string("Sequence"), case .array(let steps) = json[key], steps.count == 1
        else { continue }
        return plain(steps[0])
      }
      var left = members.filter { $0.key != "trim_offsets" }
      if type == .string("ByteLevel"), json["use_regex"] == nil {
        left.append(.init("use_regex", .bool(true)))
      }
      return .object(
        left.map { .init($0.key, plain($0.value)) }.sorted { $0.key.precedesByBytes($1.key) })
    case .array(let elements): return .array(elements.map(plain))
    default: return json
    }
  }

  private static func byteLevel(cuts: Bool) -> JSON {
    .object([
      .init("type", .string("ByteLevel")), .init("add_prefix_space", .bool(false)),
      .init("trim_offsets", .bool(true)), .init("use_regex", .bool(cuts)),
    ])
  }

  private static func split(_ pattern: String) -> JSON {
    sequence([
      .object([
        .init("type", .string("Split")),
        .init("pattern", .object([.init("Regex", .string(pattern))])),
        .init("behavior", .string("Isolated")), .init("invert", .bool(false)),
      ]),
      byteLevel(cuts: false),
    ])
  }

  private static func sequence(_ steps: [JSON]) -> JSON {
    .object([.init("type", .string("Sequence")), .init("pretokenizers", .array(steps))])
  }

  // The patterns of the models' own tokenizer.json.
  private static let llama3 =
    words + numbers(#"\p{N}{1,3}"#) + #"| ?[^\s\p{L}\p{N}]+[\r\n]*"# + spaces
  private static let qwen2 = words + numbers(#"\p{N}"#) + #"| ?[^\s\p{L}\p{N}]+[\r\n]*"# + spaces
  private static let tekken =
    #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"#
    + #"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"#
    + numbers(#"\p{N}"#) + #"| ?[^\s\p{L}\p{N}]+[\r\n/]*"# + spaces

  private static let words = #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"#
  private static func numbers(_ pattern: String) -> String { "|" + pattern }
  private static let spaces = #"|\s*[\r\n]+|\s+(?!\S)|\s+"#
}
