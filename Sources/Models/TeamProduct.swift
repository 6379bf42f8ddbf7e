import CKernels
import Checkpoints
package import LinearAlgebra

/// Products of matrices by all threads of a team, and the memory that they take for it.
///
/// The result is cut along its longer side; each number is the sum of the chains of `pef_gemm_f32`,
/// whatever the parts.
package struct TeamProduct: Sendable {
  private let team: ThreadTeam
  private let scratch: [Rows]

  /// Memory of 192 KiB a thread.
  package init(team: ThreadTeam) {
    self.team = team
    scratch = (0..<team.count).map { _ in
      Rows(1, Self.floatCountOfThread)
    }
  }

  /// The floats of a thread's memory.
  package static var floatCountOfThread: Int {
    ProjectionGroup.tileDepth * ProjectionGroup.tileWidth
  }

  /// c = a·b, or c += a·b, with one of the two transposed where `transposition` says so.
  ///
  /// Shapes: c (m, n), a (m, k) or (k, m), b (k, n) or (n, k).
  package func multiply(
    _ a: Rows, _ b: Rows, transposing transposition: Transposition = [], into c: Rows,
    adding: Bool = false
  ) {
    let (isLeft, isRight) = (transposition.contains(.left), transposition.contains(.right))
    let depth = isLeft ? a.count : a.columns
    precondition((isLeft ? a.columns : a.count) == c.count, "a row of c for each of a")
    precondition((isRight ? b.count : b.columns) == c.columns, "a column of c for each of b")
    precondition((isRight ? b.columns : b.count) == depth, "factors that fit")
    let (rows, columns) = (0..<c.count, 0..<c.columns)
    let isTall = c.count > c.columns
    let length = ProjectionGroup.width(isTall ? c.count : c.columns, team.count)
    let parts = (isTall ? rows : columns).cut(into: length)
    team.forEach(parts.count) { worker, item in
      let rows = isTall ? parts[item] : rows
      for columns in (isTall ? columns : parts[item]).cut(into: ProjectionGroup.tileWidth) {
        let result = c.rows(rows).columns(columns)
        for inner in (0..<depth).cut(into: ProjectionGroup.tileDepth) {
          let panels =
            isRight
            ? Panels(transposing: b.rows(columns).columns(inner), in: scratch[worker])
            : Panels(copying: b.rows(inner).columns(columns), in: scratch[worker])
          let isAdding = adding || inner.lowerBound > 0
          if isLeft {
            result.multiply(
              transposed: a.rows(inner).columns(rows), panels, adding: isAdding)
          } else {
            result.multiply(a.rows(rows).columns(inner), panels, adding: isAdding)
          }
        }
      }
    }
  }
}
