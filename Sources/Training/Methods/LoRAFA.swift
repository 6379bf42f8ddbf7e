import Checkpoints
import Files
import LinearAlgebra
import Models

/// LoRA-FA: A stays as it was drawn, and B takes the step that brings s·B·A nearest to that of the
/// whole weight.
///
/// B's gradient g becomes ĝ = g·(A·Aᵀ + 10⁻⁸·I)⁺ / s², which minimizes ‖s·ĝ·A − G‖ for the gradient G
/// of the weight. A does not change, so that the inverse is found once, in f64. Source: PEFT
/// `optimizers/lorafa.py`, which finds it anew in each step, in f32, and multiplies in bf16 where a
/// processor has that; ours is in f32 everywhere.
struct LoRAFA: TrainingMethod {
  /// Each adapter with its (A·Aᵀ + 10⁻⁸·I)⁺ / s², (rank, rank).
  private let pairs: [(adapter: LoRA, inverse: Rows)]

  /// What PEFT adds to the diagonal.
  private static let addend = 1e-8
  /// The columns of B's gradient that are a piece of work.
  private static let pieceWidth = 256

  /// - Throws: as `SVD`.
  init(_ adapters: [LoRA]) throws(PeftoolError) {
    var pairs: [(adapter: LoRA, inverse: Rows)] = []
    for adapter in adapters {
      precondition(adapter.a.isFrozen, "A stays as it is")
      pairs.append((adapter, try Self.inverse(adapter)))
    }
    self.pairs = pairs
  }

  /// The pseudo-inverse, singular values cut where torch's `pinv` cuts them in f32.
  private static func inverse(_ adapter: LoRA) throws(PeftoolError) -> Rows {
    let rank = adapter.rank
    let a = Matrix<Double>(Matrix(adapter.a.values))
    var gram = product(a, a, transposing: .right)
    for place in 0..<rank { gram[place, place] += addend }
    let svd = try SVD(gram)
    let least = (svd.singularValues.first ?? 0) * Double(rank) * Double(Float.ulpOfOne)
    let square = Double(adapter.scaling) * Double(adapter.scaling)
    let inverse = Rows(rank, rank)
    for row in 0..<rank {
      for column in 0..<rank {
        var sum = 0.0
        for (place, value) in svd.singularValues.enumerated() where value > least {
          sum += svd.vt[place, row] * svd.u[column, place] / value
        }
        inverse[row, column] = Float(sum / square)
      }
    }
    return inverse
  }

  func beforeUpdate(_ team: ThreadTeam) {
    let pieces = pairs.indices.flatMap { place in
      (0..<pairs[place].adapter.b.values.columns).cut(into: Self.pieceWidth).map { (place, $0) }
    }
    team.forEach(pieces.count) { _, item in
      let (place, columns) = pieces[item]
      let (adapter, inverse) = pairs[place]
      let gradient = adapter.b.gradient.columns(columns)
      let moved = Rows(adapter.rank, columns.count)
      moved.multiply(inverse, gradient)
      gradient.copy(from: moved)
    }
  }
}
