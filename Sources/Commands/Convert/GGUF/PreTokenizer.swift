import Files
import JSON

/// How a byte-level tokenizer cuts text before it merges: llama.cpp's names for it.
struct PreTokenizer {
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
    self.ignoresMerges = ignoresMerges
    self.addsBOS = addsBOS
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
