import Fixtures
import LinearAlgebra
import Testing

@testable import Models

/// Attention over a cache against attention over the whole text.
@Suite struct CachedAttentionTests {
  private static let length = 150

  private static func random(_ count: Int, _ columns: Int, seed: Int) -> Rows {
    var generator = SplitMix64(seed: seed)
    return Rows(
      (0..<count * columns).map { _ in .random(in: -1...1, using: &generator) }, columns: columns)
  }

  @Test(arguments: [nil, 1, 7, 64, 100], [1, 3, 4])
  func everyPieceHasTheNumbersOfTheWhole(window: Int?, repeats: Int) {
    let (keyHeads, size) = (2, 10)
    let attention = Attention(
      heads: keyHeads * repeats, keyHeads: keyHeads, headSize: size, window: window, scaling: 0.3)
    let work = Workspace(
      team: ThreadTeam(count: 2), tokens: 1, scratch: attention.scratchCount(length: Self.length),
      rank: 0)
    let q = Self.random(Self.length, attention.heads * size, seed: 1)
    let k = Self.random(Self.length, keyHeads * size, seed: 2)
    let v = Self.random(Self.length, keyHeads * size, seed: 3)
    let expected = Rows(Self.length, attention.heads * size)
    attention.forward(
      q: q, k: k, v: v, texts: AttentionRanges([0..<Self.length]), into: expected,
      lse: Rows(attention.heads, Self.length), work)
    for sizes in [[1], [Self.length], [70, 1, 1, 60, 18], [17, 47, 86]] {
      let cache = KeyValueCache(capacity: Self.length, keyHeads: keyHeads, headSize: size)
      let found = Rows(Self.length, attention.heads * size)
      var (first, turn) = (0, 0)
      while first < Self.length {
        let part = first..<first + sizes[turn % sizes.count]
        cache.append(k.rows(part), v.rows(part), at: first)
        attention.forward(q: q.rows(part), cache, first: first, into: found.rows(part), work)
        (first, turn) = (part.upperBound, turn + 1)
      }
      // Bit for bit: where blocks begin changes nothing.
      #expect(found.values == expected.values)
    }
  }
}
