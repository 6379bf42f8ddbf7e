/// How one module's updates d₁ and d₂ of two adapters stand to each other; with the base of a DoRA
/// adapter they are whole changes W' − W, but for the overlaps, which are always of s·B·A.
package struct DeltaComparison: Sendable {
  /// The module's path.
  package let path: String
  /// The ranks of both.
  package let ranks: (left: Int, right: Int)
  /// ‖d₁‖ and ‖d₂‖.
  package let norms: (left: Double, right: Double)
  /// ⟨d₁, d₂⟩.
  package let inner: Double
  /// ‖d₁ − d₂‖; 0 where the factors are the same.
  package let difference: Double
  /// How far the spaces of outputs agree, 0 to 1; nil where an update is zero.
  package let outputOverlap: Double?
  /// How far the spaces of inputs agree, 0 to 1; nil where an update is zero.
  package let inputOverlap: Double?
  /// How DoRA's magnitudes differ; nil where one has none, or they are in the changes.
  package let magnitude: VectorDifference?
  /// How s·b of `lora_bias` differs, of which none is zeros; nil where neither has one.
  package let bias: VectorDifference?

  /// How two vectors differ.
  package struct VectorDifference: Sendable {
    /// ‖x₁ − x₂‖.
    package let difference: Double
    /// ‖x₁‖ and ‖x₂‖.
    package let norms: (left: Double, right: Double)

    /// Compares vectors of one length.
    init(_ left: [Double], _ right: [Double]) {
      difference = zip(left, right).map { $0 - $1 }.norm
      norms = (left.norm, right.norm)
    }

    /// ‖x₁ − x₂‖ / ‖x₂‖; nil where x₂ is zero.
    package var relative: Double? { norms.right > 0 ? difference / norms.right : nil }
  }

  /// How far apart two vectors or updates may be: ‖x₁ − x₂‖ ≤ absolute + relative · ‖x₂‖.
  package struct Tolerance: Sendable {
    /// The part that does not depend on them.
    package let absolute: Double
    /// The part of the second one's norm.
    package let relative: Double

    package init(absolute: Double, relative: Double) {
      self.absolute = absolute
      self.relative = relative
    }
  }

  /// ⟨d₁, d₂⟩ / (‖d₁‖·‖d₂‖); nil where one is zero.
  package var cosine: Double? {
    let norm = norms.left * norms.right
    return norm > 0 ? max(-1, min(1, inner / norm)) : nil
  }

  /// ‖d₁‖ / ‖d₂‖; nil where d₂ is zero.
  package var normRatio: Double? { norms.right > 0 ? norms.left / norms.right : nil }

  /// ‖d₁ − d₂‖ / ‖d₂‖; nil where d₂ is zero.
  package var relative: Double? { norms.right > 0 ? difference / norms.right : nil }

  private var parts: [(difference: Double, norms: (left: Double, right: Double))] {
    [(difference, norms)] + [magnitude, bias].compactMap(\.self).map { ($0.difference, $0.norms) }
  }

  /// Whether f64 cannot tell the two apart.
  package var isEqual: Bool {
    parts.allSatisfy { $0.difference <= Self.rounding * max($0.norms.left, $0.norms.right) }
  }

  /// Whether a tolerance covers what differs.
  package func isWithin(_ tolerance: Tolerance) -> Bool {
    parts.allSatisfy {
      $0.difference <= tolerance.absolute + tolerance.relative * $0.norms.right
    }
  }

  /// What the order of f64 sums may change.
  private static let rounding = 1e-13
}

/// How all updates of two adapters together stand to each other, as one long vector each.
package struct WholeComparison: Sendable {
  /// The cosine of the angle between them; nil where one is zero.
  package let cosine: Double?
  /// ‖d₁‖ / ‖d₂‖; nil where d₂ is zero.
  package let normRatio: Double?
  /// ‖d₁ − d₂‖ / ‖d₂‖; nil where d₂ is zero.
  package let relative: Double?

  /// Sums up modules.
  package init(of modules: [DeltaComparison]) {
    let left = modules.map(\.norms.left).norm
    let right = modules.map(\.norms.right).norm
    let inner = modules.reduce(0) { $0 + $1.inner }
    cosine = left * right > 0 ? max(-1, min(1, inner / (left * right))) : nil
    normRatio = right > 0 ? left / right : nil
    relative = right > 0 ? modules.map(\.difference).norm / right : nil
  }
}
