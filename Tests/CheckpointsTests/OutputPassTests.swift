import Files
import Fixtures
import Synchronization
import Tensors
import Testing

@testable import Checkpoints

@Suite struct OutputPassTests {
  let scratch: Scratch

  init() throws { scratch = try Scratch() }

  /// Tensors that follow each other are one copy, which is cut after 8 MiB wherever they end.
  @Test(arguments: [1, 3]) func copiesThatFollowEachOtherAreAllThere(threads: Int) throws {
    let sizes = [3 << 20, 7 << 20, 0, 20 << 20, 5, 8 << 20]
    let encoded = try SafetensorsHeader.encode(
      sizes.enumerated().map { .init(name: "\($0)", dtype: .u8, shape: [$1]) }, metadata: nil,
      order: .given)
    let count = encoded.fileByteCount - encoded.bytes.count
    let data = (0..<count).map { UInt8(truncatingIfNeeded: $0 / 1000 ^ $0) }
    let file = try SafetensorsFile(opening: scratch.write("m", encoded.bytes + data))
    var pass = OutputPass<Int>()
    var expected: [UInt8] = []
    // In the file's order, and then the first two changed about, behind bytes of another kind.
    for place in [0, 1, 2, 3, 4, 5, 1, 0] {
      if place == 1 {
        pass.append([1, 2, 3], to: 0, at: expected.count)
        expected += [1, 2, 3]
        pass.append(place)
      }
      let tensor = file.tensors.first { $0.name == "\(place)" }
      let info = try #require(tensor)
      pass.append(copyOf: info, in: file, to: 0, at: expected.count)
      expected +=
        data[
          info.byteRange.lowerBound - encoded.bytes.count..<info.byteRange.upperBound
            - encoded.bytes.count]
    }
    var output = try StagedOutput(.file, at: scratch.path("out"), force: false)
    let written = try output.createFile(byteCount: expected.count)
    let copied = Mutex(0)
    let results = try pass.run(
      into: [written], threads: threads, progress: { count in copied.withLock { $0 += count } },
      worker: { 0 }, perform: { _, work throws(PeftoolError) in work * 10 })
    try output.commit()
    #expect(results == [10, 10])
    #expect(copied.withLock { $0 } == expected.count - 6)
    #expect(try scratch.bytes("out") == expected)
  }
}

@Suite struct BlockCacheTests {
  private func holds(_ cache: BlockCache, _ numbers: Range<Int>) -> [Int] {
    numbers.filter(cache.holds)
  }

  /// Each thread that reads has room for two blocks, and one thread for 8 in all.
  @Test func theLastBlocksAreKept() throws {
    let cache = BlockCache()
    func read(_ number: Int, capacity: Int) throws {
      _ = try cache.entry(number, byteCount: 4, capacity: capacity) { _ in }
    }
    for number in 0..<5 { try read(number, capacity: 3) }
    #expect(holds(cache, 0..<5) == [2, 3, 4])
    try read(2, capacity: 3)
    try read(5, capacity: 3)
    #expect(holds(cache, 0..<6) == [2, 4, 5])
    for number in 6..<9 { try read(number, capacity: 5) }
    #expect(holds(cache, 0..<9) == [2, 5, 6, 7, 8])
  }

  @Test func thereIsAnUnpackerForEachThatReadsAtOnce() throws {
    let pool = UnpackerPool()
    #expect(pool.count == 0)
    for _ in 0..<3 { try pool.withUnpacker { _ in } }
    #expect(pool.count == 1)
    try pool.withUnpacker { (_) throws(PeftoolError) in try pool.withUnpacker { _ in } }
    #expect(pool.count == 2)
  }
}

@Suite struct RecentBlocksTests {
  /// So that there is no more memory than for those that are kept and the new one.
  @Test func theOldestIsGoneBeforeTheNextIsMade() throws {
    let blocks = RecentBlocks()
    weak var first: SharedBlock?
    first = try blocks.value(of: "0") { SharedBlock(Block(byteCount: 1)) }
    for number in 1..<4 {
      _ = try blocks.value(of: "\(number)") { SharedBlock(Block(byteCount: 1)) }
    }
    #expect(first != nil)
    _ = try blocks.value(of: "4") {
      #expect(first == nil)
      return SharedBlock(Block(byteCount: 1))
    }
    // The others are still there.
    for number in 1..<5 {
      _ = try blocks.value(of: "\(number)") {
        Issue.record("made again: \(number)")
        return SharedBlock(Block(byteCount: 1))
      }
    }
  }
}
