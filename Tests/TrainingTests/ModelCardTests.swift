import Testing
import Training
import YAML

@Suite struct ModelCardTests {
  private func lines(base: String, method: String = "LoRA") -> [String] {
    ModelCard(base: base, method: method, facts: [("a", "1 | 2\n3")]).text
      .split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
  }

  @Test func itBeginsAsPEFTs() {
    let lines = lines(base: "models/SmolLM2-135M", method: "DoRA")
    #expect(
      lines.prefix(9) == [
        "---", "base_model: models/SmolLM2-135M", "library_name: peft",
        "pipeline_tag: text-generation", "tags:", "- base_model:adapter:models/SmolLM2-135M",
        "- dora", "- transformers", "---",
      ])
    #expect(lines.contains("| a | 1 \\| 2 3 |"))
  }

  @Test(arguments: ["a: b", "- a", "\"", "ß", "#x", "a:", "1", "true", "a/b c"])
  func whatYAMLWouldReadOtherwiseIsQuoted(base: String) throws {
    let lines = lines(base: base)
    let front = lines[1..<8].joined(separator: "\n")
    let yaml = try YAML(parsing: Array(front.utf8))
    let members = try yaml.mapping("the front matter")
    #expect(try members.first?.value.string("base_model") == base)
  }
}
