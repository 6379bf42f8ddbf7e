import LinearAlgebra
import Testing

@testable import Models

@Suite struct AttentionRangesTests {
  /// Whether a query sees a key, for each half of the heads, as its rule says: the same group, counted
  /// from the start or from half a group before it, and no later token.
  @Test(arguments: [(16, 4), (17, 4), (9, 5), (3, 8), (1, 2), (40, 2)])
  func groupsAreThoseOfTheRule(length: Int, size: Int) {
    // A second text after the first.
    let texts = [0..<5, 5..<5 + length]
    let pairs = AttentionRanges(texts, groupSize: size).pairs(heads: 5)
    for head in 0..<5 {
      let ranges = pairs.filter { $0.head == head }.map(\.range)
      let shift = head < 2 ? 0 : size - size / 2
      #expect(ranges.map(\.count).reduce(0, +) == 5 + length && ranges.allSatisfy { !$0.isEmpty })
      for text in texts {
        for query in text {
          for key in text where key <= query {
            let isOne =
              (query - text.lowerBound + shift) / size == (key - text.lowerBound + shift) / size
            #expect(ranges.contains { $0.contains(query) && $0.contains(key) } == isOne)
          }
        }
      }
    }
  }

  @Test func wholeTextsAreForAllHeads() {
    let pairs = AttentionRanges([0..<3, 3..<7]).pairs(heads: 3)
    #expect(pairs.count == 6 && Set(pairs.map(\.range)) == [0..<3, 3..<7])
  }

  /// A group as long as the text changes nothing for the first half of the heads, and of the second
  /// cuts it once.
  @Test func aGroupOfTheWholeTextIsTheTextForHalfOfTheHeads() {
    let pairs = AttentionRanges([0..<8], groupSize: 8).pairs(heads: 2)
    #expect(pairs.filter { $0.head == 0 }.map(\.range) == [0..<8])
    #expect(pairs.filter { $0.head == 1 }.map(\.range) == [0..<4, 4..<8])
  }

  /// No layer lets a token see what comes later: gradients of the first labels do not know the last
  /// token, and losses of a pass without gradients are those of whole texts.
  @Test func theLastTokenMovesNothingBefore() throws {
    let model = try TinyModel(family: "qwen3").load()
    func run(_ last: Int32) -> (losses: [Double], whole: [Double]) {
      let tokens = (0..<24).map { Int32(($0 * 5) % 11) } + [last]
      let batch = TokenBatch([(tokens, tokens.map { _ in true })])
      let pass = LossPass(
        model, team: .init(count: 2), tokens: 25, longest: 25, keeping: .everything, groupSize: 6)
      return (pass.addGradients(batch, scale: 1), pass.losses(batch))
    }
    let (one, other) = (run(3), run(9))
    #expect(one.losses.dropLast() == other.losses.dropLast())
    #expect(one.losses.last != other.losses.last)
    #expect(one.losses != one.whole && one.whole.dropLast() == other.whole.dropLast())
  }
}
