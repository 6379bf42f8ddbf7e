import Examples
import Fixtures
import Testing

/// Examples of given lengths; token t of example e is 1000·e + t.
private func data(_ lengths: [Int]) throws -> TokenExamples {
  let ids = lengths.enumerated().flatMap { example, count in
    (0..<count).map { Int64(1000 * example + $0) }
  }
  let offsets = lengths.reduce(into: [0]) { $0.append(($0.last ?? 0) + Int64($1)) }
  return try TokenExamples.read(
    [.i64("input_ids", [ids.count], ids), .i64("offsets", [offsets.count], offsets)],
    vocabularySize: 1 << 30, maximum: 1 << 20)
}

private func randomLengths(_ seed: UInt64, _ count: ClosedRange<Int>, longest: Int = 40) -> [Int] {
  var random = SplitMix64(seed: Int(seed))
  return (0..<Int.random(in: count, using: &random)).map { _ in
    Int.random(in: 2...longest, using: &random)
  }
}

private func all(_ batches: Batches) -> [Batch] { (0..<batches.count).map { batches[$0] } }

private func order(_ batches: Batches) -> [Int] {
  all(batches).flatMap { $0.examples.flatMap { $0 } }
}

private let arrangements: [Batches.Arrangement] = [
  .inOrder, .shuffled, .lengthGrouped, .packed(capacity: 40), .packed(capacity: 64),
]

@Suite struct BatchesTests {
  @Test(arguments: arrangements, 0..<4 as Range<UInt64>)
  func everyExampleIsInOneRowOfOneBatch(arrangement: Batches.Arrangement, seed: UInt64) throws {
    let lengths = randomLengths(seed, 1...60)
    let data = try data(lengths)
    let batches = Batches(
      data, rowsPerBatch: 3, arrangement: arrangement, seed: seed, epoch: 2, padding: -7)
    #expect(order(batches).sorted() == Array(lengths.indices))
    for (number, batch) in all(batches).enumerated() {
      #expect(batch.rowCount == (number < batches.count - 1 ? 3 : (batches.rowCount - 1) % 3 + 1))
      #expect(batch.length == batch.usedCounts.max())
      #expect(batch.ids.count == batch.rowCount * batch.length)
      for row in 0..<batch.rowCount {
        var (ids, labels, positions, starts): ([Int32], [Int32], [Int32], [Int]) = ([], [], [], [])
        for example in batch.examples[row] {
          let count = Int32(lengths[example])
          starts.append(ids.count)
          ids += (0..<count).map { Int32(example) * 1000 + $0 }
          labels += [-100] + (1..<count).map { Int32(example) * 1000 + $0 }
          positions += 0..<count
        }
        #expect(batch.segments[row] == starts && batch.usedCounts[row] == ids.count)
        let padding = batch.length - ids.count
        let place = row * batch.length..<(row + 1) * batch.length
        #expect(Array(batch.ids[place]) == ids + Array(repeating: -7, count: padding))
        #expect(Array(batch.labels[place]) == labels + Array(repeating: -100, count: padding))
        #expect(
          Array(batch.positions[place]) == positions + Array(repeating: 0, count: padding))
      }
      #expect(batch.learntTokenCount == batch.labels.count { $0 != -100 })
    }
    #expect(all(batches).reduce(0) { $0 + $1.learntTokenCount } == data.learntTokenCount)
  }

  @Test func anOrderFollowsFromSeedAndEpoch() throws {
    let data = try data(Array(repeating: 3, count: 20))
    func order(_ seed: UInt64, _ epoch: Int) -> [Int] {
      ExamplesTests.order(
        Batches(
          data, rowsPerBatch: 4, arrangement: .shuffled, seed: seed, epoch: epoch, padding: 0))
    }
    #expect(order(1, 0) == order(1, 0))
    #expect(Set([order(1, 0), order(1, 1), order(2, 0), Array(0..<20)]).count == 4)
    // Kept, since a run that is resumed must see it again.
    #expect(
      order(42, 0) == [5, 12, 11, 1, 17, 14, 4, 10, 18, 13, 3, 0, 19, 15, 6, 16, 2, 8, 7, 9])
  }

  @Test func everyOrderIsAboutAsLikely() throws {
    let data = try data([2, 2, 2])
    var counts: [[Int]: Int] = [:]
    for seed in 0..<600 as Range<UInt64> {
      let batches = Batches(
        data, rowsPerBatch: 1, arrangement: .shuffled, seed: seed, epoch: 0, padding: 0)
      counts[order(batches), default: 0] += 1
    }
    // 100 of each are expected, with a standard deviation of 9.
    #expect(counts.count == 6 && counts.values.allSatisfy { (60...140).contains($0) })
  }

  @Test(arguments: 0..<4 as Range<UInt64>)
  func rowsOfABatchAreAboutEquallyLong(seed: UInt64) throws {
    let lengths = randomLengths(seed, 400...600, longest: 100)
    let data = try data(lengths)
    func padded(_ arrangement: Batches.Arrangement) -> Int {
      all(
        Batches(data, rowsPerBatch: 4, arrangement: arrangement, seed: seed, epoch: 0, padding: 0)
      ).reduce(0) { $0 + $1.ids.count }
    }
    let total = lengths.reduce(0, +)
    #expect(padded(.shuffled) > total * 14 / 10)
    #expect(padded(.lengthGrouped) < total * 11 / 10)
    let batches = Batches(
      data, rowsPerBatch: 4, arrangement: .lengthGrouped, seed: seed, epoch: 0, padding: 0)
    #expect(lengths[order(batches)[0]] == lengths.max())
  }

  @Test(arguments: 0..<4 as Range<UInt64>)
  func packedRowsAreNearlyFull(seed: UInt64) throws {
    let lengths = randomLengths(seed, 200...300)
    let data = try data(lengths)
    let batches = Batches(
      data, rowsPerBatch: 2, arrangement: .packed(capacity: 128), seed: seed, epoch: 0, padding: 0)
    #expect(all(batches).allSatisfy { $0.usedCounts.allSatisfy { $0 <= 128 } })
    // Best fit decreasing needs at most 11/9 of the least rows, and of short pieces hardly more.
    let least = (lengths.reduce(0, +) + 127) / 128
    #expect(batches.rowCount <= least + 1)
  }

  @Test func whatIsLongerThanARowHasOneOfItsOwn() throws {
    let batches = Batches(
      try data([5, 12, 3, 10, 7]), rowsPerBatch: 9, arrangement: .packed(capacity: 10), seed: 0,
      epoch: 0, padding: 0)
    #expect(Set(batches[0].examples) == [[1], [3], [4, 2], [0]])
    #expect(batches[0].length == 12)
  }

  /// Each has a row of its own; to look through all rows for each takes 16 times as long for four
  /// times as many.
  @Test func manyRowsArePackedInATimeThatGrowsWithTheirNumber() throws {
    func seconds(_ count: Int) throws -> Double {
      let data = try data(Array(repeating: 5, count: count))
      return processorSeconds {
        let batches = Batches(
          data, rowsPerBatch: 8, arrangement: .packed(capacity: 8), seed: 0, epoch: 0, padding: 0)
        #expect(batches.rowCount == count)
      }
    }
    #expect(try seconds(40_000) < seconds(10_000) * 9)
  }
}
