package import Examples
package import Models

extension TokenBatch {
  /// The examples of a batch, one after the other without the padding.
  package init(_ batch: Batch) {
    var texts: [(tokens: [Int32], labels: [Int32?])] = []
    for row in 0..<batch.rowCount {
      let start = row * batch.length
      let ends = batch.segments[row].dropFirst() + [batch.usedCounts[row]]
      for (first, end) in zip(batch.segments[row], ends) {
        let range = start + first..<start + end
        texts.append(
          (
            Array(batch.ids[range]),
            batch.labels[range].map { $0 == TokenExamples.ignored ? nil : $0 }
          ))
      }
    }
    self.init(texts)
  }
}
