import Foundation
import JSON
import Testing

@testable import Adapters

/// `Formats/peft-adapter.md` as it stands.
@Suite struct AdapterFormatTests {
  private static let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
  private let page: String

  init() throws {
    let file = Self.tests.appendingPathComponent("../../Formats/peft-adapter.md")
    page = try String(contentsOf: file, encoding: .utf8)
  }

  @Test func theExampleIsAConfiguration() throws {
    let example = try #require(page.components(separatedBy: "```json\n").dropFirst().first)
    let text = try #require(example.components(separatedBy: "```").first)
    let configuration = try configuration(text)
    #expect(configuration.method == .lora)
    #expect(configuration.usesDoRA)
    #expect(configuration.targetModules == ["q_proj", "v_proj"])
    #expect(try configuration.scaling(of: "model.layers.0.q_proj", keptRank: 4) == 4)
    #expect(try configuration.scaling(of: "model.layers.1.q_proj", keptRank: 8) == 2)
  }

  @Test func everyTestThatIsNamedIsThere() throws {
    let sources = try FileManager.default.contentsOfDirectory(
      at: Self.tests, includingPropertiesForKeys: nil
    ).filter { $0.pathExtension == "swift" }
    let text = try sources.map { try String(contentsOf: $0, encoding: .utf8) }.joined()
    var names: [String] = []
    for row in page.split(separator: "\n") where row.hasPrefix("|") {
      let cell = String(row.split(separator: "|").last ?? "")
      for match in cell.matches(of: /`([a-z][A-Za-z0-9]{15,})`/) {
        names.append(String(match.output.1))
      }
    }
    #expect(names.count > 15)
    for name in names { #expect(text.contains("func \(name)("), "\(name)") }
  }
}
