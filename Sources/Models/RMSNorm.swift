import CKernels
import Checkpoints
import LinearAlgebra

/// Root-mean-square normalization: y = w ∘ x·ρ, ρ = 1/√(mean(x²) + ε).
struct RMSNorm: Sendable {
  /// The weight, (1, columns).
  let weight: Rows
  /// The weight where it is trained.
  let trained: TrainableParameter?
  /// ε.
  let epsilon: Float

  /// The columns of a piece of work of the weight's gradient.
  private static let pieceWidth = 64

  /// A norm of a frozen weight.
  init(weight: Rows, epsilon: Float) {
    self.weight = weight
    self.epsilon = epsilon
    trained = nil
  }

  /// A norm of a trained weight.
  init(trained: TrainableParameter, epsilon: Float) {
    weight = trained.values
    self.epsilon = epsilon
    self.trained = trained
  }

  /// Shapes: x, y (N, columns) without gaps; ρ (1, N), which the backward pass needs.
  func forward(_ x: Rows, into y: Rows, rho: Rows, _ work: Workspace) {
    precondition(x.isDense && y.isDense && x.columns == weight.columns && y.count == x.count)
    precondition(rho.columns == x.count && y.columns == x.columns)
    work.forTokens(x.count) { _, tokens in
      // The parts of rows that have been checked.
      unsafe pef_rmsnorm_forward_f32(
        y.rows(tokens).pointer, rho.columns(tokens).pointer, x.rows(tokens).pointer,
        weight.pointer, tokens.count, x.columns, epsilon)
    }
  }

  /// dx += ρ·(g − x̂·mean(g ∘ x̂)), g = w ∘ dy, x̂ = x·ρ; of a trained weight dw += Σ dy ∘ x̂.
  ///
  /// - Parameter dx: nil where the input's gradient is of no use.
  func backward(_ dy: Rows, x: Rows, rho: Rows, addingTo dx: Rows?, _ work: Workspace) {
    precondition(x.isDense && dy.isDense && x.columns == weight.columns)
    precondition(dy.count == x.count && rho.columns == x.count && dy.columns == x.columns)
    if let trained { addGradient(to: trained.gradient, dy, x: x, rho: rho, work) }
    guard let dx else { return }
    precondition(dx.isDense && dx.count == x.count && dx.columns == x.columns)
    work.forTokens(x.count) { _, tokens in
      // As in forward.
      unsafe pef_rmsnorm_backward_f32(
        dx.rows(tokens).pointer, dy.rows(tokens).pointer, x.rows(tokens).pointer,
        rho.columns(tokens).pointer, weight.pointer, tokens.count, x.columns)
    }
  }

  /// Cut by columns, so that each number is one chain over the rows.
  private func addGradient(
    to gradient: Rows, _ dy: Rows, x: Rows, rho: Rows, _ work: Workspace
  ) {
    let parts = (0..<x.columns).cut(into: Self.pieceWidth)
    work.team.forEach(parts.count) { _, item in
      let part = parts[item]
      // The same columns of rows that have been checked, x.columns apart.
      unsafe pef_rmsnorm_weight_f32(
        gradient.columns(part).pointer, dy.columns(part).pointer, x.columns(part).pointer,
        rho.pointer, x.columns, x.count, part.count)
    }
  }
}
