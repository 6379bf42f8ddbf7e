import Files
import JSON
import Tokenizers

/// A small tokenizer whose tree a test changes.
///
/// The letters a to h are tokens 0 to 7, `ab` is 8, a space 9, `▁` 10, `<unk>` 11.
struct Tree {
  var text = """
    {"version": "1.0", "truncation": null, "padding": null, "added_tokens": [ADDED],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "dropout": null, "unk_token": null,
    "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
    "byte_fallback": false, "ignore_merges": false, "vocab": {"a": 0, "b": 1, "c": 2, "d": 3,
    "e": 4, "f": 5, "g": 6, "h": 7, "ab": 8, " ": 9, "▁": 10, "<unk>": 11},
    "merges": [["a", "b"]]}}
    """

  /// Puts a text in the place of another, which must be there.
  func replacing(_ old: String, _ new: String) -> Tree {
    precondition(text.contains(old))
    return Tree(text: text.replacing(old, with: new))
  }

  /// Sets a part that is null.
  func setting(_ key: String, _ json: String) -> Tree {
    replacing("\"\(key)\": null", "\"\(key)\": \(json)")
  }

  /// Adds tokens: their texts, the first with the number 12, each with members set.
  func adding(_ tokens: (text: String, members: String)...) -> Tree { adding(all: tokens) }

  /// Adds tokens as the other method does.
  func adding(all tokens: [(text: String, members: String)]) -> Tree {
    let entries = tokens.enumerated().map { index, token in
      var entry = """
        {"id": \(12 + index), "content": "\(token.text)", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": false}
        """
      for member in token.members.split(separator: " ") {
        entry = entry.replacing("\"\(member)\": false", with: "\"\(member)\": true")
      }
      return entry
    }
    return replacing("ADDED", entries.joined(separator: ", "))
  }

  func tokenizer() throws(PeftoolError) -> Tokenizer {
    try Tokenizer(parsing: Array(text.replacing("ADDED", with: "").utf8))
  }

  /// The tokens of a text, as they stand in the file.
  func tokens(_ text: String) throws -> [String] {
    let tokenizer = try tokenizer()
    return try tokenizer.encode(text).map { tokenizer.token($0) ?? "" }
  }

  /// The line with which the file is refused.
  func refusal() -> String? {
    do throws(PeftoolError) {
      _ = try tokenizer()
      return nil
    } catch {
      return error.description
    }
  }
}
