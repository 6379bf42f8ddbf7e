import Fixtures
import Testing

@testable import Tokenizers

@Suite struct MergingTests {
  /// Merges of random pairs of tokens, as a vocabulary could have them.
  private func merges(_ random: inout SplitMix64, count: Int) -> MergeTable {
    var table = MergeTable(capacity: count)
    for rank in 0..<count {
      table.set(
        Int32(random.next() % 12), Int32(random.next() % 12), rank: rank,
        token: Int32(random.next() % 12))
    }
    return table
  }

  /// The definition, step by step: of all pairs the first with the lowest rank becomes one.
  private func merged(_ ids: [Int32], by merges: MergeTable) -> [Int32] {
    var ids = ids
    while true {
      let ranks = (0..<max(0, ids.count - 1)).map { merges.merge(ids[$0], ids[$0 + 1]) }
      guard let lowest = ranks.min(), lowest != MergeTable.none,
        let place = ranks.firstIndex(of: lowest)
      else { return ids }
      ids.replaceSubrange(place...(place + 1), with: [MergeTable.token(of: lowest)])
    }
  }

  @Test func bothWaysAreTheDefinition() {
    var random = SplitMix64(seed: 1)
    for round in 0..<400 {
      let table = merges(&random, count: round % 60)
      let ids = (0..<(round % 40)).map { _ in Int32(random.next() % 12) }
      let expected = merged(ids, by: table)
      for isScanning in [true, false] {
        var symbols = Symbols()
        ids.forEach { symbols.append($0) }
        if isScanning { symbols.mergeScanning(by: table) } else { symbols.mergeByHeap(by: table) }
        var result: [Int32] = []
        symbols.append(to: &result)
        #expect(result == expected)
      }
    }
  }

  @Test(arguments: [Symbols.maximumScanCount, Symbols.maximumScanCount + 1, 1000])
  func lengthMakesNoDifference(count: Int) {
    var random = SplitMix64(seed: count)
    let table = merges(&random, count: 60)
    let ids = (0..<count).map { _ in Int32(random.next() % 12) }
    var symbols = Symbols()
    ids.forEach { symbols.append($0) }
    symbols.merge(by: table)
    var result: [Int32] = []
    symbols.append(to: &result)
    #expect(result == merged(ids, by: table))
  }

  @Test(.timeLimit(.minutes(5)))
  func aWordOfAMegabyteIsMerged() throws {
    let tokenizer = try Samples.tokenizer("llama2")
    let text = String(repeating: "adaptermodel", count: 90_000)
    let ids = try tokenizer.encode(text)
    #expect(ids.count < text.utf8.count / 2)
    #expect(try tokenizer.decode(ids, skippingSpecialTokens: true) == text)
  }

  @Test func aTableFindsWhatWasPutIn() {
    var table = TokenTable(capacity: 0)
    for id in 0..<3000 {
      let text = Array("token \(id)".utf8)
      let isNew = table.insert(text.span, id: Int32(3 * id))
      let isNewAgain = table.insert(text.span, id: 1)
      #expect(isNew && !isNewAgain)
    }
    #expect(table.count == 3000)
    func number(_ text: String) -> Int32? { table.id(of: Array(text.utf8).span) }
    for id in 0..<3000 {
      #expect(number("token \(id)") == Int32(3 * id))
      #expect(table.text(of: Int32(3 * id)).map(Array.init) == Array("token \(id)".utf8))
    }
    #expect(number("token 3000") == nil)
    #expect(table.text(of: 1) == nil)
  }

  @Test func aCacheForgetsNothingTooSoon() {
    var cache = WordCache()
    func word(_ number: Int) -> [UInt8] { Array("word \(number)".utf8) }
    /// The numbers of a word that the cache knows.
    func found(_ word: [UInt8]) -> [Int32]? {
      var ids: [Int32] = []
      return cache.append(word.span, to: &ids) ? ids : nil
    }
    var mistakes: [Int] = []
    for number in 0..<(WordCache.maximumCount + 10) {
      let isNew = found(word(number)) == nil
      cache.insert(word(number).span, [Int32(number), 7][...])
      if !isNew || found(word(number)) != [Int32(number), 7] { mistakes.append(number) }
    }
    #expect(mistakes == [])
    // All were forgotten when there were too many.
    #expect(found(word(0)) == nil)
    #expect(found(word(WordCache.maximumCount)) == [Int32(WordCache.maximumCount), 7])
    let long = [UInt8](repeating: 97, count: WordCache.maximumWordByteCount + 1)
    cache.insert(long.span, [1][...])
    #expect(found(long) == nil)
  }

  @Test func severalThreadsMayEncode() async throws {
    let tokenizer = try Samples.tokenizer("smollm")
    let answers = try Samples.answers("smollm")
    try await withThrowingTaskGroup(of: Bool.self) { group in
      for _ in 0..<8 {
        group.addTask {
          for answer in answers where try tokenizer.encode(answer.text) != answer.ids {
            return false
          }
          return true
        }
      }
      for try await isRight in group { #expect(isRight) }
    }
  }
}
