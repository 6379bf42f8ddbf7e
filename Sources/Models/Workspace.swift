import Checkpoints
package import LinearAlgebra

/// The threads that a model computes on, and the memory that its layers share.
package final class Workspace: Sendable {
  /// The threads.
  package let team: ThreadTeam
  private let tiles: [Rows]
  private let lowRankMemory: Rows

  /// Memory for so many tokens at once.
  ///
  /// - Parameters:
  ///   - scratch: the floats that a thread's layers need at most.
  ///   - rank: the sum of the ranks of the layers of one input.
  init(team: ThreadTeam, tokens: Int, scratch: Int, rank: Int) {
    self.team = team
    let count = max(scratch, ProjectionGroup.scratchCount)
    tiles = (0..<team.count).map { _ in Rows(1, count) }
    lowRankMemory = Rows(tokens * 2 * rank, 1)
  }

  /// A thread's own memory, one row.
  func scratch(of worker: Int) -> Rows { tiles[worker] }

  /// Rows for the product with a factor of an adapter, after those of `start` ranks.
  func lowRank(_ count: Int, _ rank: Int, at start: Int) -> Rows {
    let first = start * count
    return Rows(
      lowRankMemory.storage, start: lowRankMemory.start + first, count: count, columns: rank,
      stride: rank)
  }

  /// Runs a closure for parts of all tokens.
  func forTokens(_ count: Int, _ body: (_ worker: Int, _ tokens: Range<Int>) -> Void) {
    let size = max(1, min(64, (count + team.count * 2 - 1) / (team.count * 2)))
    let parts = (0..<count).cut(into: size)
    team.forEach(parts.count) { worker, item in body(worker, parts[item]) }
  }
}
