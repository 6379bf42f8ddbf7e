import Files
import Foundation
import JSON
import Tokenizers

/// Small tokenizers of several families, and what the `tokenizers` library makes of texts with them.
enum Samples {
  static let folder = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("Samples/tokenizers").path

  static let names = [
    "gpt2", "smollm", "llama3", "qwen2", "nemo", "mistral", "llama2", "tinyllama",
  ]

  static func tokenizer(_ name: String) throws -> Tokenizer {
    try Tokenizer(contentsOf: "\(folder)/\(name).json")
  }

  /// A text with its tokens, with special ones around it and without, and these as text again,
  /// with special ones and without.
  struct Answer {
    let text: String
    let ids: [Int32]
    let plain: [Int32]
    let decoded: String
    let skipped: String
  }

  static func answers(_ name: String) throws -> [Answer] {
    try JSON(opening: "\(folder)/expected.json").array(at: name).map { row in
      func ids(_ key: String) throws -> [Int32] {
        try row.array(at: key).map { Int32(try $0.int(named: key)) }
      }
      return Answer(
        text: try row.string(at: "text"), ids: try ids("ids"), plain: try ids("plain"),
        decoded: try row.string(at: "decoded"), skipped: try row.string(at: "skipped"))
    }
  }
}
