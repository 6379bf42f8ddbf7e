import Checkpoints
import Foundation
import Tensors
import Fixtures
import Testing

@testable import Commands

@Suite struct DifferenceTests {
  private let folder: Scratch

  init() throws { folder = try Scratch() }

  private func difference(
    _ a: [TestTensor], _ b: [TestTensor], atol: Double = 0, rtol: Double = 0, threads: Int = 2
  ) throws -> CheckpointDifference {
    let paths = try (
      folder.write("a.safetensors", a), folder.write("b.safetensors", b)
    )
    return try CheckpointDifference(
      Checkpoint(opening: paths.0), Checkpoint(opening: paths.1),
      within: DiffTolerance(absolute: atol, relative: rtol), threads: threads)
  }

  private func floats(_ name: String, _ values: [Float]) -> TestTensor {
    TestTensor(name, .f32, values)
  }

  @Test func valuesDecideNotBits() throws {
    let found = try difference(
      [floats("a", [0, .nan, 1]), TestTensor("b", .u8, [1, 2] as [UInt8])],
      [floats("a", [-0.0, -.nan, 1]), TestTensor("b", .f32, [1, 2] as [Float])])
    #expect(found.verdict == .identical)
    #expect(found.dtypeChanges.map(\.count) == [1])
  }

  @Test func theWorstComesFirst() throws {
    let found = try difference(
      [floats("a", [1, 1]), floats("b", [1, 1]), floats("c", [.nan, 1]), floats("d", [1, 1])],
      [floats("a", [1, 1.5]), floats("b", [1, 9]), floats("c", [1, 1]), floats("d", [1, 1])])
    #expect(found.verdict == .different)
    #expect(found.differing.map(\.pair.name) == ["c", "b", "a"])
    #expect(found.equalCount == 1)
    let b = found.differing[1].difference
    #expect((b.largest, b.differingCount, b.nonfiniteCount) == (8, 1, 0))
    #expect(b.relative == (64 / 82.0).squareRoot())
    let cosine = try #require(b.cosine)
    #expect(abs(cosine - 10 / (2 * 82).squareRoot()) < 1e-15)
    #expect(found.differing[0].difference.nonfiniteCount == 1)
  }

  @Test func toleranceIsAbsoluteAndRelativeToB() throws {
    let (a, b) = ([floats("a", [1, 100])], [floats("a", [1.5, 110])])
    #expect(try difference(a, b, atol: 10).verdict == .withinTolerance)
    #expect(try difference(a, b, atol: 9.9).verdict == .different)
    #expect(try difference(a, b, rtol: 0.34).verdict == .withinTolerance)
    #expect(try difference(a, b, rtol: 0.33).verdict == .different)
    #expect(try difference([floats("a", [.infinity])], b, atol: 1e300).verdict == .different)
  }

  @Test func shapesAndMissingTensorsDiffer() throws {
    let found = try difference(
      [floats("a", [1, 2]), floats("b", [1])], [floats("a", [1, 2, 3]), floats("c", [1])])
    #expect(found.verdict == .different)
    #expect(found.incomparable.map(\.name) == ["a"])
    #expect((found.onlyInLeft, found.onlyInRight) == (["b"], ["c"]))
  }

  @Test func largeIntegersAreComparedExactly() throws {
    let two53: Int64 = 1 << 53
    let found = try difference(
      [TestTensor("a", .i64, [two53, .min])], [TestTensor("a", .i64, [two53 + 1, .min])])
    #expect(found.differing.first?.difference.differingCount == 1)
    #expect(found.differing.first?.difference.largest == 1)
    let extremes = try difference(
      [TestTensor("a", .i64, [Int64.min])], [TestTensor("a", .i64, [Int64.max])])
    #expect(extremes.differing.first?.difference.largest == 0x1p64)
    let unsigned = try difference(
      [TestTensor("a", .u64, [UInt64.max])], [TestTensor("a", .u64, [UInt64.max - 1])], atol: 1)
    #expect(unsigned.verdict == .withinTolerance)
  }

  @Test func packedAndComplexDTypesAreComparedToo() throws {
    let packed = try difference(
      [
        TestTensor("a", .f4, [4], bytes: [1, 2]),
        TestTensor("c", .c64, [1, 2] as [Float], shape: [1]),
      ],
      [
        TestTensor("a", .f4, [4], bytes: [1, 3]),
        TestTensor("c", .c64, [1, 2] as [Float], shape: [1]),
      ]
        as [TestTensor])
    #expect(packed.differing.map(\.pair.name) == ["a"])
    #expect(packed.equalCount == 1)
    let mixed = try difference(
      [TestTensor("a", .f4, [2], bytes: [1])], [TestTensor("a", .u8, [2], bytes: [1, 1])])
    #expect(mixed.incomparable.map(\.name) == ["a"])
  }

  @Test(arguments: [
    ("{\"tie_word_embeddings\": true}", CheckpointDifference.Verdict.identical),
    ("{}", .identical), ("{\"tie_word_embeddings\": false}", .different), ("", .different),
  ])
  func aTiedOutputIsComparedWithTheEmbedding(
    config: String, verdict: CheckpointDifference.Verdict
  ) throws {
    let embedding = TestTensor(
      "model.embed_tokens.weight", .f32, [1, 2] as [Float], shape: [2, 1])
    let output = TestTensor("lm_head.weight", .f32, [1, 2] as [Float], shape: [2, 1])
    let (a, b) = (folder.path("tied"), folder.path("full"))
    try folder.write("tied/model.safetensors", [embedding])
    try folder.write("full/model.safetensors", [embedding, output])
    if config != "" { try folder.write("tied/config.json", config) }
    for (left, right) in [(a, b), (b, a)] {
      let found = try CheckpointDifference(
        Checkpoint(opening: left), Checkpoint(opening: right), within: DiffTolerance(), threads: 1)
      #expect(found.verdict == verdict)
      #expect(found.tied.map(\.isAbsentInLeft) == (verdict == .identical ? [left == a] : []))
    }
  }

  @Test func settingsOfAdaptersCount() throws {
    for (name, config) in [
      ("a", "{\"r\": 4, \"lora_alpha\": 8, \"use_dora\": false, \"task_type\": \"X\"}"),
      ("b", "{\"r\": 4, \"lora_alpha\": 8.0, \"rank_pattern\": {}}"), ("c", "{\"r\": 4}"),
    ] {
      try folder.write("\(name)/adapter_model.safetensors", [floats("x", [1])])
      try folder.write("\(name)/adapter_config.json", config)
    }
    func verdict(_ a: String, _ b: String) throws -> CheckpointDifference.Verdict {
      try CheckpointDifference(
        Checkpoint(opening: folder.path(a)), Checkpoint(opening: folder.path(b)),
        within: DiffTolerance(), threads: 1
      ).verdict
    }
    #expect(try verdict("a", "b") == .identical)
    #expect(try verdict("a", "c") == .different)
  }

  @Test func threadsDoNotChangeALastBit() throws {
    var random = SplitMix64(seed: 2)
    func words() -> [UInt64] {
      (0..<(20 << 20) / 8).map { _ in random.next() & 0x7777_7777_7777_7777 }
    }
    let a = [TestTensor("a", .f8E4M3, words(), shape: [20 << 20])]
    let b = [TestTensor("a", .f8E5M2, words(), shape: [20 << 20])]
    let reports = try [1, 2, 7].map { try difference(a, b, threads: $0).report }
    #expect(reports[1] == reports[0])
    #expect(reports[2] == reports[0])
  }
}
