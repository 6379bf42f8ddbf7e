import Examples
import Files
import Foundation
import Testing

private let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
  .deletingLastPathComponent().deletingLastPathComponent()

/// `Formats/training-data.md` says what is so.
@Suite struct TrainingDataDocumentTests {
  private let document: String

  init() throws {
    document = try String(
      contentsOf: root.appendingPathComponent("Formats/training-data.md"), encoding: .utf8)
  }

  private func input(_ kind: String) throws -> DataInput {
    let parts = document.components(separatedBy: "```\(kind)\n")
    #expect(parts.count == 2)
    return DataInput(Array(try #require(parts[1].components(separatedBy: "```").first).utf8))
  }

  @Test func itsExamplesAreRead() throws {
    var text = JSONLines(try input("jsonl text"))
    #expect(try text.next()?.content == .text("All of this is learnt."))
    var completion = JSONLines(try input("jsonl completion"))
    let right = Example.Content.completion(prompt: "What is 2+2? ", completion: "4")
    #expect(try completion.next()?.content == right)
    var messages = JSONLines(try input("jsonl messages"))
    let chat = [
      ChatMessage(.system, "Be brief."), ChatMessage(.user, "Why?"), ChatMessage(.assistant, "So."),
    ]
    #expect(try messages.next()?.content == .messages(chat))
    var table = CSVExamples(try input("csv"))
    let quoted = Example.Content.completion(prompt: "What is \"2+2\"? ", completion: "4")
    #expect(try table.next() == Example(quoted, line: 2))
  }

  @Test func itListsEveryTemplateAndFormat() throws {
    let section = try #require(document.components(separatedBy: "## Chat templates").last)
      .components(separatedBy: "## Batches")[0]
    let rows = section.split(separator: "\n").filter { $0.hasPrefix("| `") }
    let names = rows.flatMap { row in
      row.split(separator: "|")[0].matches(of: /`([^`]+)`/).map { String($0.1) }
    }
    #expect(names.sorted() == ChatTemplate.names.sorted())
    for format in DataFormat.allCases { #expect(document.contains("`.\(format.rawValue)`")) }
    #expect(document.contains("at most 16 MiB") && LineReader.maximumByteCount == 16 << 20)
  }

  @Test func theTestsThatItNamesAreThere() throws {
    let folder = root.appendingPathComponent("Tests/ExamplesTests")
    let sources = try FileManager.default.contentsOfDirectory(atPath: folder.path).map {
      try String(contentsOf: folder.appendingPathComponent($0), encoding: .utf8)
    }.joined()
    let table = try #require(document.components(separatedBy: "## Refused").last)
    let names = table.matches(of: /`(?:(\w+)\.)?(\w+)`/)
    #expect(names.count >= 10)
    for name in names {
      if let suite = name.1 { #expect(sources.contains("struct \(suite) ")) }
      #expect(sources.contains("func \(name.2)("), "\(name.2)")
    }
  }
}
