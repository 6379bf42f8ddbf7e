import Files
import JSON

/// The tokens with a meaning of their own, by their numbers.
struct SpecialTokens {
  private var tokens: [(name: String, id: Int)] = []

  /// Reads them from the metadata; `count` is the size of the vocabulary.
  ///
  /// - Throws: `damaged` where a number is past the vocabulary's end.
  init(_ metadata: GGUFMetadata, count: Int) throws(PeftoolError) {
    for (name, key) in [
      ("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"),
    ] {
      let key = "tokenizer.ggml.\(key)_token_id"
      guard let id = try metadata.int(key) else { continue }
      guard id < count else {
        throw PeftoolError(.damaged, "\(key) is \(id), the vocabulary has \(count) tokens")
      }
      tokens.append((name, id))
    }
  }

  /// The number of `bos`, `eos`, `unk` or `pad`.
  subscript(name: String) -> Int? { tokens.first { $0.name == name }?.id }

  /// The members that `config.json` and `generation_config.json` have for them.
  var ids: [JSON.Member] {
    tokens.filter { $0.name != "unk" }.map { .init("\($0.name)_token_id", .number($0.id)) }
  }

  /// The members that `tokenizer_config.json` has for them.
  ///
  /// Null says that there is none: the tokenizers of some families have names of their own else.
  func names(_ vocabulary: [String]) -> [JSON.Member] {
    ["bos", "eos", "unk", "pad"].map { name in
      .init("\(name)_token", self[name].map { .string(vocabulary[$0]) } ?? .null)
    }
  }
}
