import Foundation
import Fixtures
import Tensors
import Testing

@testable import Checkpoints

/// `Formats/packed.md` says what is so.
@Suite struct PackedDocumentTests {
  private let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  private func document() throws -> String {
    try String(contentsOf: root.appendingPathComponent("Formats/packed.md"), encoding: .utf8)
  }

  @Test func theExampleIsRead() throws {
    let parts = try document().components(separatedBy: "```hex\n")
    let dump = try #require(parts.dropFirst().first?.components(separatedBy: "```").first)
    let bytes = try dump.split(separator: "\n").flatMap { line in
      try line.split(separator: " ").dropFirst().map { try #require(UInt8($0, radix: 16)) }
    }
    let scratch = try Scratch()
    let file = try PackedFile(opening: scratch.write("a.zst", bytes))
    #expect(file.contents.members.map(\.name) == ["a.safetensors"])
    #expect(file.tensors.map(\.name) == ["w"] && file.tensors.map(\.shape) == [[2]])
    #expect(try file.bytes(of: file.tensors[0]) == [0x80, 0x3F, 0x00, 0xC0])
    #expect(try unpacked(file)[0].count == file.contents.members[0].byteCount)
  }

  @Test func everyTestThatIsNamedIsThereAndTheOtherWay() throws {
    let folder = "Tests/CheckpointsTests/Packed"
    func source(_ name: String) throws -> String {
      try String(
        contentsOf: root.appendingPathComponent("\(folder)/\(name).swift"), encoding: .utf8)
    }
    let rules = try source("PackedRefusalTests")
    let sources = try rules + source("PackedFileTests")
    let attacks = try #require(
      try document().components(separatedBy: "## Attacks refused").dropFirst().first)
    let named = attacks.matches(of: #/`(\w+)`/#).map { String($0.1) }
    #expect(named.filter { !sources.contains("func \($0)(") } == [])
    let tested = rules.matches(of: #/@Test.*? func (\w+)\(|\) func (\w+)\(|^  func (\w+)\(/#)
      .compactMap { ($0.1 ?? $0.2 ?? $0.3).map(String.init) }
    #expect(tested.count > 20)
    #expect(tested.filter { !named.contains($0) } == [])
  }
}
