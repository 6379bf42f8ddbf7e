import Checkpoints
import Fixtures
import Foundation
import Quantization
import Tensors
import Testing

/// `Formats/bitsandbytes.md` says what is so.
@Suite struct BitsAndBytesDocumentTests {
  private let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  private func text(_ path: String) throws -> String {
    try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
  }

  /// What stands between the fences of the first block of that kind.
  private func example(_ kind: String) throws -> String {
    let parts = try text("Formats/bitsandbytes.md").components(separatedBy: "```\(kind)\n")
    return try #require(parts.dropFirst().first?.components(separatedBy: "\n```").first)
  }

  @Test func theStateIsReadAndWritten() throws {
    let state = try FourBitState(parsing: Array(try example("json").utf8))
    #expect(
      state
        == FourBitState(
          code: .nf4, blockSize: 64, dtype: .bf16, shape: [40, 72],
          nestedOffset: 0.20425346493721008))
    #expect(try state.text == example("json"))
  }

  @Test(arguments: FourBitCode.allCases) func theLevelsAreThose(code: FourBitCode) throws {
    let bits = try example(code.rawValue).split(whereSeparator: \.isWhitespace)
    #expect(bits.map { UInt32($0, radix: 16) } == code.levels.map(\.bitPattern))
  }

  @Test func theElementsAreThose() throws {
    var bytes: [Substring: [UInt8]] = [:]
    for line in try example("hex").split(separator: "\n") {
      let words = line.split(separator: " ")
      bytes[words[0]] = try words.dropFirst().map { try #require(UInt8($0, radix: 16)) }
    }
    var file = QuantizedFile.plain
    file.state = file.state.replacing("[3, 64]", with: "[1, 4]")
    file.parts["m.weight"] = .init(.u8, [2, 1], try #require(bytes["weight"]))
    file.parts["m.weight.absmax"] = .init(.f32, [1], try #require(bytes["absmax"]))
    let checkpoint = try file.checkpoint(in: Scratch())
    let weights = try QuantizedWeight.all(in: checkpoint)
    let source = DequantizedSource(
      checkpoint.source, weights: [.init(weights[0], dtype: .f32, isTransposed: false)])
    let expected: [Float] = [-2, 2, 0, -1.0501461]
    #expect(
      try source.bytes(of: source.tensors[0])
        == expected.flatMap { littleEndian(UInt64($0.bitPattern), 4) })
  }

  @Test func everyTestThatIsNamedIsThere() throws {
    var tested: Set<String> = []
    for name in ["QuantizedWeightTests", "DequantizedSourceTests"] {
      let source = try text("Tests/CheckpointsTests/\(name).swift")
      tested.formUnion(source.matches(of: #/\n  (?:@Test.*)?func (\w+)\(/#).map { String($0.1) })
    }
    let rules = try #require(
      try text("Formats/bitsandbytes.md").components(separatedBy: "## Refused").last)
    let named = Set(rules.matches(of: #/`([a-z]+[A-Z]\w+)`/#).map { String($0.1) })
    #expect(named.count > 35)
    #expect(named.subtracting(tested) == [])
    // And the other way, but for what is right.
    let others: Set = [
      "unchangedFilesAreTaken", "codesMayLieInAWiderType", "rowsNeedNoFormat",
      "namesAloneQuantizeNothing", "anErrorNamesTheShardOfItsTensor",
      "blocksAreLevelsTimesScales", "rowsAreCodesTimesScales",
    ]
    #expect(tested.subtracting(others).subtracting(named) == [])
  }
}
