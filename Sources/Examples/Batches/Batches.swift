import LinearAlgebra

/// The batches of one pass over the data, any of which can be had by its number alone.
package struct Batches: Sendable {
  /// How examples become rows.
  package enum Arrangement: Equatable, Sendable {
    /// One a row, in the order of the data.
    case inOrder
    /// One a row, shuffled.
    case shuffled
    /// One a row, shuffled so that rows of a batch are about equally long.
    case lengthGrouped
    /// Several a row, as many as fit into so many tokens; rows shuffled.
    case packed(capacity: Int)
  }

  private let data: TokenExamples
  private let rows: [[Int]]
  private let rowsPerBatch: Int
  private let padding: Int32

  /// Orders the data for a pass; no batch is made yet.
  ///
  /// The order follows from the data, the arrangement, the seed and the epoch, and is the same on
  /// every machine. The last batch has what is left.
  /// - Parameter padding: the token that fills rows up.
  package init(
    _ data: TokenExamples, rowsPerBatch: Int, arrangement: Arrangement, seed: UInt64, epoch: Int,
    padding: Int32
  ) {
    precondition(rowsPerBatch > 0 && epoch >= 0, "rows in a batch")
    self.data = data
    self.rowsPerBatch = rowsPerBatch
    self.padding = padding
    let lengths = (0..<data.count).map { data.range($0).count }
    // Two streams an epoch: one for the examples, one for the rows they are packed into.
    func shuffled(_ count: Int, _ stream: UInt64) -> [Int] {
      ExampleOrder.shuffled(
        count: count, RandomNumbers(seed: seed, stream: UInt64(epoch) * 2 + stream))
    }
    switch arrangement {
    case .inOrder: rows = (0..<data.count).map { [$0] }
    case .shuffled: rows = shuffled(data.count, 0).map { [$0] }
    case .lengthGrouped:
      rows = ExampleOrder.lengthGrouped(
        shuffled(data.count, 0), lengths: lengths, rowsPerBatch: rowsPerBatch
      ).map { [$0] }
    case .packed(let capacity):
      let packed = ExampleOrder.packed(
        shuffled(data.count, 0), lengths: lengths, capacity: capacity)
      rows = shuffled(packed.count, 1).map { packed[$0] }
    }
  }

  /// How many batches there are.
  package var count: Int { (rows.count + rowsPerBatch - 1) / rowsPerBatch }

  /// How many rows all batches have together.
  package var rowCount: Int { rows.count }

  /// A batch by its number, from 0.
  package subscript(number: Int) -> Batch {
    precondition((0..<count).contains(number), "a batch of the pass")
    let start = number * rowsPerBatch
    return Batch(
      Array(rows[start..<min(start + rowsPerBatch, rows.count)]), of: data, padding: padding)
  }
}
