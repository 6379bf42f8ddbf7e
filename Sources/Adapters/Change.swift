/// What one adapter makes of one tensor W of the base: W' = update(own ?? W).
package struct Change: Sendable {
  /// The adapter's full values that take W's place, rounded to the base's dtype as PEFT does where
  /// that is written.
  package var own: StoredTensor?
  /// What is then done with them.
  package var update: Update?
  /// The shape of the tensor that the update was fitted to.
  package var updateShape: [Int] = []
  /// Whether `own` takes the place of a parameter that tied embeddings share, and so of both ends.
  package var isOwnShared = false
  /// Whether the update is one of the parameter that tied embeddings share.
  package var isUpdateShared = false

  /// The arithmetic of an update; W is the tensor that it is applied to.
  package enum Update: Sendable {
    /// W + d.
    case lowRank(LowRank)
    /// (m / ‖V‖) · V with V = W + d, the norm and the magnitude m along an axis (DoRA).
    case dora(LowRank, magnitude: StoredTensor, Axis)
    /// W ⊙ l, a factor for each row or column ((IA)³).
    case multiply(StoredTensor, Axis)
    /// W + s·x, x of W's shape (`lora_bias`).
    case add(StoredTensor, scaling: Double)
    /// W + S (SHiRA).
    case sparse(SparseChange)
    /// W with some rows in place of its own (trainable tokens): row `rows[i]` is row i of x.
    case replaceRows(StoredTensor, rows: [Int])
  }

  /// Along what a factor runs in the tensor seen as a matrix.
  package enum Axis: Equatable, Sendable {
    /// A factor for each row.
    case rows
    /// A factor for each column, or for every `repeated` columns: a convolution's input channels.
    case columns(repeated: Int)
  }

  /// The tensors of the adapter that it reads.
  package var parts: [StoredTensor] {
    let parts: [StoredTensor?] =
      switch update {
      case nil: []
      case .lowRank(let d): [d.a, d.b, d.e]
      case .dora(let d, let magnitude, _): [d.a, d.b, d.e, magnitude]
      case .sparse(let s): [s.values, s.indices]
      case .multiply(let x, _), .add(let x, _), .replaceRows(let x, _): [x]
      }
    return ([own] + parts).compactMap { $0 }
  }
}

/// When sums are rounded to the base's dtype.
package enum Rounding: String, CaseIterable, Sendable {
  /// All adapters in one sum, rounded once at the end.
  case once
  /// One adapter after the other, rounded after each: `merge_and_unload` of PEFT.
  case peft
  /// The same, and each low-rank update rounded by itself first: PEFT's `safe_merge=True`.
  case peftSafe = "peft-safe"
}
