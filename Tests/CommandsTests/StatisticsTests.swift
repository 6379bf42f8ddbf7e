import Checkpoints
import Reports
import Tensors
import Fixtures
import Testing

@testable import Commands

@Suite struct StatisticsTests {
  private func statistics(of path: String, threads: Int) throws -> [ElementStatistics?] {
    let source = try Checkpoint(opening: path).source
    return try Commands.statistics(
      of: source.tensors, in: source, threads: threads,
      progress: ProgressLine("", totalByteCount: 0, isQuiet: true))
  }

  @Test func figuresAreOfTheFiniteElements() throws {
    let folder = try Scratch()
    let path = try folder.write(
      "x.safetensors",
      [
        TestTensor("a", .f32, [3, -4, .nan, .infinity, -.infinity, 0, -0.0] as [Float]),
        TestTensor("b", .f32, [.nan] as [Float]), TestTensor("c", .i64, [-7, 5] as [Int64]),
        TestTensor("d", .f4, [4], bytes: [1, 2]), TestTensor("e", .f32, [] as [Float]),
      ])
    let found = try statistics(of: path, threads: 2)
    let a = try #require(found[0])
    #expect((a.minimum, a.maximum, a.mean, a.norm) == (-4, 3, -0.25, 5))
    #expect((a.nanCount, a.infinityCount, a.zeroCount) == (1, 2, 2))
    #expect(found[1]?.mean == nil)
    #expect((found[2]?.minimum, found[2]?.maximum, found[2]?.mean) == (-7, 5, -1))
    #expect(found[3] == nil)
    #expect(found[4]?.count == 0)
  }

  /// More than two segments, so that workers share a tensor.
  @Test func threadsDoNotChangeALastBit() throws {
    var random = SplitMix64(seed: 1)
    let words = (0..<(20 << 20) / 8).map { _ in random.next() & 0x7777_7777_7777_7777 }
    let folder = try Scratch()
    let path = try folder.write(
      "x.safetensors",
      [
        TestTensor("a", .f8E5M2, words, shape: [20 << 20]),
        TestTensor("b", .f16, Array(words.prefix(1001)), shape: [4004]),
      ])
    let one = try statistics(of: path, threads: 1)
    #expect(one[0]?.count == 20 << 20)
    for threads in [2, 3, 7] {
      #expect(try statistics(of: path, threads: threads) == one)
    }
  }
}
