import Checkpoints
import Fixtures
import Foundation
import Tensors
import Testing

/// `Formats/safetensors.md` says what is so.
@Suite struct DocumentTests {
  private let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  private func document() throws -> String {
    try String(
      contentsOf: root.appendingPathComponent("Formats/safetensors.md"), encoding: .utf8)
  }

  /// The bytes of the first fenced hex dump.
  private func example() throws -> [UInt8] {
    let parts = try document().components(separatedBy: "```hex\n")
    let dump = try #require(parts.dropFirst().first?.components(separatedBy: "```").first)
    return try dump.split(separator: "\n").flatMap { line in
      try line.split(separator: " ").dropFirst().map { try #require(UInt8($0, radix: 16)) }
    }
  }

  @Test func theExampleIsRead() throws {
    let scratch = try Scratch()
    let file = try SafetensorsFile(opening: scratch.write("a", example()))
    #expect(file.metadata.map(\.key) == ["format"] && file.metadata.map(\.value) == ["pt"])
    #expect(file.tensors.map(\.name) == ["e", "w"])
    #expect(file.tensors.map(\.dtype) == [.f32, .bf16])
    #expect(file.tensors.map(\.shape) == [[0, 3], [2]])
    #expect(try file.bytes(of: file.tensors[1]) == [0x80, 0x3F, 0x00, 0xC0])
  }

  @Test func theExampleIsWritten() throws {
    let encoded = try SafetensorsHeader.encode(
      [
        .init(name: "w", dtype: .bf16, shape: [2]), .init(name: "e", dtype: .f32, shape: [0, 3]),
      ], metadata: [("format", "pt")])
    #expect(try encoded.bytes + [0x80, 0x3F, 0x00, 0xC0] == example())
  }

  @Test func everyDTypeIsNamedWithItsBits() throws {
    let lines = try document().components(separatedBy: "\n")
    for dtype in DType.safetensors {
      let line = lines.first { $0.contains("`\(dtype.rawValue)`") && $0.contains("| ") }
      let cells = line?.split(separator: "|").first?.split { !$0.isNumber }
      #expect(cells?.first.flatMap { Int($0) } == dtype.bitCount, "\(dtype.rawValue)")
    }
  }

  @Test func everyTestThatIsNamedIsThere() throws {
    let folders = ["Tests/CheckpointsTests", "Tests/FilesTests"]
    var sources = ""
    for folder in folders {
      for name in try FileManager.default.contentsOfDirectory(
        atPath: root.appendingPathComponent(folder).path) where name.hasSuffix(".swift")
      {
        sources += try String(
          contentsOf: root.appendingPathComponent("\(folder)/\(name)"), encoding: .utf8)
      }
    }
    let attacks = try #require(
      try document().components(separatedBy: "## Attacks refused").dropFirst().first)
    let named = attacks.matches(of: #/`(\w+)`/#).map { String($0.1) }
    #expect(named.count > 40)
    #expect(named.filter { !sources.contains("func \($0)(") } == [])
    // And the other way: no rule is tested that the document leaves out.
    let rules = try String(
      contentsOf: root.appendingPathComponent("Tests/CheckpointsTests/HeaderRefusalTests.swift"),
      encoding: .utf8
    ).components(separatedBy: "@Suite struct HeaderRefusalTests")
    let tested = try #require(rules.last).matches(of: #/func (\w+)\(/#).map { String($0.1) }
    #expect(tested.count >= 28)
    #expect(tested.filter { !named.contains($0) } == [])
  }
}
