import Foundation
import Testing
import Tokenizers

/// The example of `Formats/tokenizer-json.md`.
@Suite struct DocumentTests {
  @Test func theExampleMeansWhatThePageSays() throws {
    let page = try String(
      contentsOf: URL(fileURLWithPath: Samples.folder)
        .appendingPathComponent("../../Formats/tokenizer-json.md"), encoding: .utf8)
    let parts = page.components(separatedBy: "```")
    let example = try #require(parts.first { $0.hasPrefix("json\n") }).dropFirst(5)
    let tokenizer = try Tokenizer(parsing: Array(example.utf8))
    let sentence = try #require(page.firstMatch(of: /`([^`]+)` becomes ([\d ]+)\./))
    let ids = sentence.2.split(separator: " ").compactMap { Int32($0) }
    #expect(try tokenizer.encode(String(sentence.1)) == ids)
    #expect(
      try tokenizer.decode(ids, skippingSpecialTokens: true) == String(sentence.1))
    #expect(tokenizer.vocabularySize == 6)
  }
}
