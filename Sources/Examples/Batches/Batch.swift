/// Rows of tokens that go through a model together.
package struct Batch: Equatable, Sendable {
  /// How many rows there are.
  package let rowCount: Int
  /// How many tokens each row has, padding included.
  package let length: Int
  /// The tokens (rows, length).
  package let ids: [Int32]
  /// The label of each token (rows, length): what is learnt to stand in its place, or
  /// `TokenExamples.ignored`.
  ///
  /// Not shifted: a loss compares the label of token t with what the model says at t − 1. The first
  /// token of an example has none, since what stands before it is another example or nothing.
  package let labels: [Int32]
  /// Where the examples begin in each row, ascending from 0.
  ///
  /// No token attends to one of another example, and positions count from its beginning.
  package let segments: [[Int]]
  /// How many tokens of each row are examples; those behind are padding, on the right.
  package let usedCounts: [Int]
  /// The examples in each row, by their places in the data.
  package let examples: [[Int]]

  /// The place of each token in its example (rows, length); 0 for padding.
  package var positions: [Int32] {
    var positions = [Int32](repeating: 0, count: rowCount * length)
    for row in 0..<rowCount {
      let ends = segments[row].dropFirst() + [usedCounts[row]]
      for (start, end) in zip(segments[row], ends) {
        for place in start..<end { positions[row * length + place] = Int32(place - start) }
      }
    }
    return positions
  }

  /// How many tokens have a label.
  package var learntTokenCount: Int { labels.count { $0 != TokenExamples.ignored } }

  /// The batch of rows of examples, padded to the longest row.
  init(_ rows: [[Int]], of data: TokenExamples, padding: Int32) {
    let used = rows.map { row in row.reduce(0) { $0 + data.range($1).count } }
    let length = used.max() ?? 0
    var ids = [Int32](repeating: padding, count: rows.count * length)
    var labels = [Int32](repeating: TokenExamples.ignored, count: rows.count * length)
    var segments: [[Int]] = []
    for (number, row) in rows.enumerated() {
      var starts: [Int] = []
      var place = 0
      for example in row {
        starts.append(place)
        for (offset, source) in data.range(example).enumerated() {
          ids[number * length + place] = data.ids[source]
          if offset > 0 { labels[number * length + place] = data.labels[source] }
          place += 1
        }
      }
      segments.append(starts)
    }
    rowCount = rows.count
    self.length = length
    self.ids = ids
    self.labels = labels
    self.segments = segments
    usedCounts = used
    examples = rows
  }
}
