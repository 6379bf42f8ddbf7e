import Files
import LinearAlgebra
import Models

/// Texts through a model, as many at once as there is memory for, and the loss of their tokens.
///
/// Each text sees itself alone. Losses come back text by text, in the order of the texts.
struct ScoredWindows {
  /// The losses of one text's labelled tokens.
  typealias Report = (_ losses: ArraySlice<Double>) throws(PeftoolError) -> Void

  private let pass: LossPass
  private var texts: [(tokens: [Int32], isLabel: [Bool])] = []
  private var tokenCount = 0
  /// The tokens that have gone through the model.
  private(set) var computedCount = 0

  /// The tokens that go through a model at once where texts are shorter.
  private static let batchTokenCount = 1024

  /// Memory for texts of so many tokens at most.
  init(_ model: Llama, team: ThreadTeam, longest: Int) {
    pass = LossPass(
      model, team: team, tokens: max(longest, Self.batchTokenCount), longest: longest,
      keeping: .nothing)
  }

  /// The bytes that texts of so many tokens at most take beside the model.
  static func byteCount(_ model: Llama, threads: Int, longest: Int) -> Int {
    LossPass.byteCount(
      model, tokens: max(longest, batchTokenCount), longest: longest, keeping: .nothing,
      threads: threads)
  }

  /// Takes a text; what has been taken is computed when no more fits beside it.
  mutating func append(
    _ tokens: [Int32], isLabel: [Bool], _ report: Report
  ) throws(PeftoolError) {
    if tokenCount + tokens.count > pass.tokenCount { try finish(report) }
    texts.append((tokens, isLabel))
    tokenCount += tokens.count
  }

  /// Computes what has been taken.
  mutating func finish(_ report: Report) throws(PeftoolError) {
    guard !texts.isEmpty else { return }
    let losses = pass.losses(TokenBatch(texts))
    var place = 0
    for text in texts {
      let count = text.isLabel.dropFirst().count { $0 }
      try report(losses[place..<place + count])
      place += count
    }
    computedCount += tokenCount
    (texts, tokenCount) = ([], 0)
  }
}

/// A text that is longer than what a model takes, cut into windows, each of whose tokens is
/// predicted in one of them alone.
///
/// Source: transformers' guide "Perplexity of fixed-length models": window i begins at i · stride,
/// and its tokens that no window before had are predicted. The very first token of the text is not.
struct StridedWindows: Sequence, IteratorProtocol {
  private let isLabel: [Bool]
  private let length: Int
  private let stride: Int
  private var begin = 0
  private var end = 0

  init(_ isLabel: [Bool], length: Int, stride: Int) {
    precondition(length > 0 && (1...length).contains(stride), "windows that leave nothing out")
    self.isLabel = isLabel
    self.length = length
    self.stride = stride
  }

  /// The next window, and which of its tokens are predicted.
  mutating func next() -> (range: Range<Int>, isLabel: [Bool])? {
    guard end < isLabel.count else { return nil }
    let range = begin..<Swift.min(begin + length, isLabel.count)
    let flags = range.map { isLabel[$0] && $0 >= end }
    (begin, end) = (begin + stride, range.upperBound)
    return (range, flags)
  }
}
