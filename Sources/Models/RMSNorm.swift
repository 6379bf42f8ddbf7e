import CKernels

/// Root-mean-square normalization: y = w ∘ x·ρ, ρ = 1/√(mean(x²) + ε).
struct RMSNorm: Sendable {
  /// The weight, (1, columns).
  let weight: Rows
  /// ε.
  let epsilon: Float

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

  /// dx += ρ·(g − x̂·mean(g ∘ x̂)), g = w ∘ dy, x̂ = x·ρ.
  func backward(_ dy: Rows, x: Rows, rho: Rows, addingTo dx: Rows, _ work: Workspace) {
    precondition(x.isDense && dy.isDense && dx.isDense && x.columns == weight.columns)
    precondition(dy.count == x.count && dx.count == x.count && rho.columns == x.count)
    precondition(dy.columns == x.columns && dx.columns == x.columns)
    work.forTokens(x.count) { _, tokens in
      // As in forward.
      unsafe pef_rmsnorm_backward_f32(
        dx.rows(tokens).pointer, dy.rows(tokens).pointer, x.rows(tokens).pointer,
        rho.columns(tokens).pointer, weight.pointer, tokens.count, x.columns)
    }
  }
}
