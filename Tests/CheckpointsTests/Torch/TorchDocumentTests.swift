import Checkpoints
import Foundation
import Tensors
import Testing

/// `Formats/torch.md` says what is so.
@Suite struct TorchDocumentTests {
  private let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  private func document() throws -> String {
    try String(contentsOf: root.appendingPathComponent("Formats/torch.md"), encoding: .utf8)
  }

  @Test func theExampleIsRead() throws {
    let parts = try document().components(separatedBy: "```hex\n")
    let dump = try #require(parts.dropFirst().first?.components(separatedBy: "```").first)
    let bytes = try dump.split(separator: "\n").flatMap { line in
      try line.split(separator: " ").dropFirst().map { try #require(UInt8($0, radix: 16)) }
    }
    let file = try torchFile(bytes)
    #expect(file.tensors.map(\.name) == ["w"])
    #expect(file.tensors.map(\.dtype) == [.bf16])
    #expect(file.tensors.map(\.shape) == [[2]])
    #expect(Array(bytes[file.tensors[0].byteRange]) == [0x80, 0x3F, 0x00, 0xC0])
  }

  /// The opcodes of the page are those of the interpreter.
  @Test func everyOpcodeIsNamed() throws {
    let source = try String(
      contentsOf: root.appendingPathComponent("Sources/Checkpoints/Torch/PickleOpcode.swift"),
      encoding: .utf8)
    let cases = source.matches(of: #/case (\w+) = 0x/#).map { $0.1.lowercased() }
    let section = try #require(
      try document().components(separatedBy: "## The pickle\n").last?
        .components(separatedBy: "And these names").first)
    let named = section.matches(of: #/\b[A-Z][A-Z_0-9]{3,}\b/#).map {
      $0.0.replacing("_", with: "").lowercased()
    }
    #expect(Set(named) == Set(cases))
  }

  @Test func everyTestThatIsNamedIsThere() throws {
    let folder = root.appendingPathComponent("Tests/CheckpointsTests/Torch")
    var tested: Set<String> = []
    for name in ["PickleRefusalTests", "TensorRefusalTests", "ZipRefusalTests"] {
      let source = try String(
        contentsOf: folder.appendingPathComponent("\(name).swift"), encoding: .utf8)
      tested.formUnion(
        source.matches(of: #/@Test[^{]*? func (\w+)\(|\n  func (\w+)\(/#).compactMap {
          ($0.1 ?? $0.2).map(String.init)
        })
    }
    let attacks = try #require(
      try document().components(separatedBy: "## Attacks refused").dropFirst().first)
    let named = attacks.matches(of: #/`([a-z]\w+)`/#).map { String($0.1) }
    #expect(named.count > 50)
    #expect(named.filter { !tested.contains($0) } == [])
    // And the other way, but for what is said above the attacks.
    let others: Set = [
      "theUnchangedFileIsTaken", "aRepeatedRowIsTaken", "anErrorTellsWhere",
      "whatIsNoOpcodeIsDamaged",
      "aConjugatedTensorIsRefused", "whatIsKnownButNotReadIsSaid", "aKeyIsTextOrANumber",
      "whatHoldsNoTensorIsRefused", "anotherPickleIsNoFileOfTorch", "aViewOfAStorageIsRefused",
    ]
    #expect(tested.subtracting(others).filter { !named.contains($0) } == [])
  }
}
