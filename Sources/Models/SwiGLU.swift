import CKernels

/// The gate of a feed-forward layer: m = silu(a) ∘ b.
enum SwiGLU {
  /// Shapes: all (N, F) without gaps.
  static func forward(_ a: Rows, _ b: Rows, into m: Rows, _ work: Workspace) {
    check(a, b, m)
    work.forTokens(m.count) { _, tokens in
      // The parts of rows that have been checked.
      unsafe pef_swiglu_forward_f32(
        m.rows(tokens).pointer, a.rows(tokens).pointer, b.rows(tokens).pointer,
        tokens.count * m.columns)
    }
  }

  /// From dm, which `dmThenDa` holds: da in its place, and db.
  static func backward(_ a: Rows, _ b: Rows, dmThenDa: Rows, db: Rows, _ work: Workspace) {
    check(a, b, dmThenDa)
    check(a, b, db)
    work.forTokens(a.count) { _, tokens in
      // As in forward.
      unsafe pef_swiglu_backward_f32(
        dmThenDa.rows(tokens).pointer, db.rows(tokens).pointer, a.rows(tokens).pointer,
        b.rows(tokens).pointer, tokens.count * a.columns)
    }
  }

  private static func check(_ a: Rows, _ b: Rows, _ m: Rows) {
    precondition(a.isDense && b.isDense && m.isDense, "rows without gaps")
    precondition(a.count == m.count && b.count == m.count, "as many rows")
    precondition(a.columns == m.columns && b.columns == m.columns, "of one width")
  }
}
