import Files

/// Examples as numbers of tokens, each token with its label, in the order in which they were read.
package struct TokenExamples: Sendable {
  /// The label of a token that is not learnt.
  package static let ignored: Int32 = -100

  /// The tokens of all examples, one behind the other.
  package private(set) var ids: [Int32] = []
  /// The label of each token: what is learnt to stand there, or `ignored`.
  ///
  /// Not shifted: the label of a token is as a rule the token itself.
  package private(set) var labels: [Int32] = []
  /// Where each example begins in `ids`, and where the last ends.
  package private(set) var offsets = [0]
  /// How many examples were longer than allowed and cut at their ends.
  package private(set) var truncatedCount = 0
  /// How many tokens were cut off.
  package private(set) var cutTokenCount = 0
  /// How many examples were left out because no label was left when they were cut.
  package private(set) var droppedCount = 0

  /// No examples.
  package init() {}

  /// How many examples there are.
  package var count: Int { offsets.count - 1 }

  /// The place of an example in `ids`.
  package func range(_ index: Int) -> Range<Int> { offsets[index]..<offsets[index + 1] }

  /// The tokens of the longest example.
  package var longest: Int { (0..<count).reduce(0) { max($0, range($1).count) } }

  /// How many tokens are learnt: those with a label, but for the first of each example, before
  /// which nothing stands.
  package var learntTokenCount: Int {
    (0..<count).reduce(0) { sum, index in
      sum + labels[range(index).dropFirst()].count { $0 != Self.ignored }
    }
  }

  /// What is done with examples of more tokens than a row may have.
  package struct Length: Equatable, Sendable {
    /// The most tokens of an example.
    package let maximum: Int
    /// Whether longer ones are cut, or else are an error.
    package let truncates: Bool

    package init(maximum: Int, truncates: Bool) {
      self.maximum = maximum
      self.truncates = truncates
    }
  }

  /// Adds an example.
  ///
  /// - Throws: `different` where it is too long and nothing is cut, `damaged` where nothing in it is
  ///   learnt.
  mutating func append(_ ids: [Int32], labels: [Int32], length: Length) throws(PeftoolError) {
    precondition(ids.count == labels.count, "a label for each token")
    guard labels.dropFirst().contains(where: { $0 != Self.ignored }) else {
      throw PeftoolError(
        .damaged,
        ids.isEmpty
          ? "has no tokens"
          : "has nothing to learn: no token behind the first has a label")
    }
    let kept = min(ids.count, length.maximum)
    if kept < ids.count {
      guard length.truncates else {
        throw PeftoolError(
          .different,
          "has \(ids.count) tokens, expected at most \(length.maximum) (--max-length); --truncate "
            + "cuts what is longer")
      }
      cutTokenCount += ids.count - kept
      guard labels[..<kept].dropFirst().contains(where: { $0 != Self.ignored }) else {
        droppedCount += 1
        return
      }
      truncatedCount += 1
    }
    self.ids += ids[..<kept]
    self.labels += labels[..<kept]
    offsets.append(self.ids.count)
  }

  /// Adds a stream of tokens, all of them learnt, in pieces of the maximal length.
  ///
  /// A last piece of one token is left out: nothing stands before it.
  mutating func append(stream ids: [Int32], length: Length) {
    var start = 0
    while start + 1 < ids.count {
      let end = min(ids.count, start + length.maximum)
      self.ids += ids[start..<end]
      labels += ids[start..<end]
      offsets.append(self.ids.count)
      start = end
    }
  }
}
