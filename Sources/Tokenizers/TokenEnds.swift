/// The tokens of a text, and where each of them ends.
package struct TokenEnds: Equatable, Sendable {
  /// The numbers of the tokens, without those around the text.
  package internal(set) var ids: [Int32] = []
  /// How many bytes stand before the end of each token: of the text as normalizer and pre-tokenizer
  /// leave it, which is as a rule the text itself.
  ///
  /// Of several unknown tokens in a piece the first is taken for all that is unknown.
  package internal(set) var ends: [Int] = []
  /// How many bytes that text has.
  package internal(set) var byteCount = 0

  /// Adds a token that is all of a part of the text.
  mutating func append(byteCount: Int) {
    self.byteCount += byteCount
    ends.append(self.byteCount)
  }

  /// Adds the ends of the tokens of a piece that stands behind what was added as a whole.
  mutating func append(_ piece: Range<Int>, byteCounts: [Int]) {
    var end = piece.lowerBound
    for count in byteCounts {
      end = min(end + count, piece.upperBound)
      ends.append(byteCount + end)
    }
    if !byteCounts.isEmpty { ends[ends.count - 1] = byteCount + piece.upperBound }
  }
}
