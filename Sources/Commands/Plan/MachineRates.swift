import LinearAlgebra
import Models
import Reports
import Training

extension StepCost.Rates {
  /// The rows and columns of the products that are timed, and the floats that are passed over.
  private static let (rows, columns, floats) = (512, 1024, 1 << 24)
  /// For how long products are repeated.
  private static let seconds = 0.25
  /// What memory is taken to do where only the rate of products is told.
  static let assumedBytes = 10e9

  /// How fast this machine is, by the clock: the best of some products by all threads of a team, and
  /// of two passes over memory.
  static func measured(by team: ThreadTeam) -> Self {
    let product = TeamProduct(team: team)
    let x = Rows(rows, columns)
    let w = Rows(columns, columns)
    let y = Rows(rows, columns)
    let end = monotonicSeconds() + seconds
    var best = Double.infinity
    while monotonicSeconds() < end || best.isInfinite {
      let start = monotonicSeconds()
      product.multiply(x, w, transposing: .right, into: y)
      best = min(best, monotonicSeconds() - start)
    }
    let memory = Rows(team.count, floats / team.count)
    var pass = Double.infinity
    // The first one makes the pages.
    for number in 0..<3 {
      let start = monotonicSeconds()
      team.forEach(team.count) { _, row in memory.rows(row..<row + 1).scale(by: 1) }
      if number > 0 { pass = min(pass, monotonicSeconds() - start) }
    }
    return Self(
      operations: 2 * Double(rows * columns * columns) / best,
      bytes: 8 * Double(memory.count * memory.columns) / pass)
  }
}
