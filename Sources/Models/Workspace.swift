import Checkpoints
package import LinearAlgebra

/// The threads that a model computes on, and the memory that its layers share.
package final class Workspace: Sendable {
  /// The threads.
  package let team: ThreadTeam
  /// What the adapters of this pass leave out; nil where they take all.
  let dropout: Dropout?
  private let tiles: [Rows]
  private let lowRankMemory: Rows
  private let maskMemory: Rows

  /// Memory for so many tokens at once.
  ///
  /// - Parameters:
  ///   - scratch: the floats that a thread's layers need at most.
  ///   - rank: the sum of the ranks of the layers of one input.
  ///   - masked: likewise of the inputs of which adapters leave some out.
  init(team: ThreadTeam, tokens: Int, scratch: Int, rank: Int, masked: Int = 0) {
    self.team = team
    dropout = nil
    var count = max(scratch, ProjectionGroup.scratchCount)
    if masked > 0 { count = max(count, ProjectionGroup.droppingScratchCount(tokens: tokens)) }
    tiles = (0..<team.count).map { _ in Rows(1, count) }
    lowRankMemory = Rows(tokens * 2 * rank, 1)
    maskMemory = Rows(tokens * masked, 1)
  }

  private init(_ work: Workspace, dropout: Dropout?) {
    team = work.team
    tiles = work.tiles
    lowRankMemory = work.lowRankMemory
    maskMemory = work.maskMemory
    self.dropout = dropout
  }

  /// The same threads and memory for a pass in which adapters leave something out.
  func dropping(_ dropout: Dropout?) -> Workspace { Workspace(self, dropout: dropout) }

  /// A thread's own memory, one row.
  func scratch(of worker: Int) -> Rows { tiles[worker] }

  /// Rows for the product with a factor of an adapter, after those of `start` ranks.
  func lowRank(_ count: Int, _ rank: Int, at start: Int) -> Rows {
    Self.rows(of: lowRankMemory, count, rank, at: start)
  }

  /// Rows for a layer's mask, after those of `start` inputs.
  func mask(_ count: Int, _ inputs: Int, at start: Int) -> Rows {
    Self.rows(of: maskMemory, count, inputs, at: start)
  }

  private static func rows(of memory: Rows, _ count: Int, _ columns: Int, at start: Int) -> Rows {
    Rows(
      memory.storage, start: memory.start + start * count, count: count, columns: columns,
      stride: columns)
  }

  /// Runs a closure for parts of all tokens.
  func forTokens(_ count: Int, _ body: (_ worker: Int, _ tokens: Range<Int>) -> Void) {
    let size = max(1, min(64, (count + team.count * 2 - 1) / (team.count * 2)))
    let parts = (0..<count).cut(into: size)
    team.forEach(parts.count) { worker, item in body(worker, parts[item]) }
  }
}
