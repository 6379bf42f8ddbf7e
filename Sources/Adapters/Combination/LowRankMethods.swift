import Files
import Glibc
import LinearAlgebra

// Methods that never form an update.

/// The sum: its factors are those of the terms, stacked.
enum Concatenation {
  /// Σ w·s·B·A as one product of rank Σ r; the factors go to B.
  static func combine(_ terms: [Term]) -> Pair {
    Pair(
      a: Matrix(stacking: terms.map(\.a)),
      b: Matrix(joining: terms.map { $0.b.scaled(by: $0.factor) }))
  }
}

/// The way on the sphere from one update to another (`nuslerp` of mergekit).
enum Slerp {
  /// With t = w₁ / (w₀ + w₁): sin((1 − t)θ) / sin θ · d₀ + sin(tθ) / sin θ · d₁, θ the angle between
  /// them; the straight way where it is (almost) 0.
  static func combine(_ terms: [Term]) -> Pair {
    Concatenation.combine(
      zip(terms, coefficients(of: terms)).map {
        Term(a: $0.a, b: $0.b, scaling: $0.scaling, weight: $1)
      })
  }

  /// The factors on the two.
  static func coefficients(of terms: [Term]) -> [Double] {
    precondition(terms.count == 2, "two updates")
    let norms = terms.map { inner($0, $0).squareRoot() }
    let total = terms[0].weight + terms[1].weight
    let t = total == 0 ? 0.5 : terms[1].weight / total
    var coefficients = [1 - t, t]
    if norms[0] > 0, norms[1] > 0 {
      let cosine = max(-1, min(1, inner(terms[0], terms[1]) / (norms[0] * norms[1])))
      let angle = acos(cosine)
      if sin(angle).magnitude >= 1e-8 {
        coefficients = [sin((1 - t) * angle) / sin(angle), sin(t * angle) / sin(angle)]
      }
    }
    return coefficients
  }

  /// ⟨d₀, d₁⟩ = s₀·s₁·⟨B₀ᵀB₁, A₀A₁ᵀ⟩.
  private static func inner(_ left: Term, _ right: Term) -> Double {
    let b = product(left.b, right.b, transposing: .left)
    let a = product(left.a, right.a, transposing: .right)
    return zip(b.elements, a.elements).reduce(0) { $0 + $1.0 * $1.1 }
      * left.scaling * right.scaling
  }
}

/// KnOTS (Stoica and others 2024): the updates in one basis, there merged by TIES.
enum Knots {
  /// Singular values up to this are none (`task_merger.py`); of small updates up to this share of the
  /// largest.
  private static let leastSingularValue = 1e-5

  /// [d₁ | d₂ | …] = U·Σ·[V₁ | V₂ | …]; the blocks Σ·Vᵢ are merged, and U gives the update back.
  ///
  /// With B̂ = Q·R, the B side by side, it is the decomposition of [R₁·A₁ | R₂·A₂ | …], whose Gram
  /// matrix is as small as the rank.
  static func combine(
    _ terms: [Term], _ settings: CombinationSettings
  ) throws(PeftoolError) -> Pair {
    let qr = QR(Matrix(joining: terms.map { $0.b.scaled(by: $0.scaling) }))
    var start = 0
    var blocks: [Matrix<Double>] = []
    for term in terms {
      let end = start + term.rank
      let part = qr.r.columns(start..<end)
      blocks.append(product(part, term.a))
      start = end
    }
    let svd = try SVD(Matrix(joining: blocks))
    let least = leastSingularValue * min(1, svd.singularValues.first ?? 1)
    let rank = svd.singularValues.count { $0 > least }
    let u = product(qr.q, svd.u.firstColumns(rank))
    // U_coreᵀ · block = Σ·Vᵢᵀ.
    let core = svd.u.firstColumns(rank)
    let coordinates = blocks.map { product(core, $0, transposing: .left) }
    let kept = zip(coordinates, terms).map {
      $0.elements.keepingLargest(density: $1.density)
    }
    let merged = Election.mean(kept, weights: terms.map(\.weight), by: settings.majority)
    return Pair(
      a: Matrix(rows: rank, columns: terms[0].a.columns, elements: merged), b: u)
  }
}

/// TSV-M (Gargiulo and others 2025): singular vectors of all updates, made orthogonal.
enum TaskSingularVectors {
  /// Of each update the leading singular triples; Û, V̂ side by side are replaced by the nearest
  /// orthogonal matrices, and the update is Û⊥·Σ̂·V̂⊥ᵀ (`TSVM_utils.py`).
  static func combine(_ terms: [Term]) throws(PeftoolError) -> Pair {
    var left: [Matrix<Double>] = []
    var right: [Matrix<Double>] = []
    var values: [Double] = []
    let least = min(terms[0].b.rows, terms[0].a.columns)
    for term in terms where term.factor != 0 {
      let svd = try LowRankSVD.of(term.b, term.a)
      let kept = svd.truncated(to: max(1, min(term.rank, least / terms.count)))
      // A negative weight turns the left vectors around.
      left.append(term.factor < 0 ? kept.u.scaled(by: -1) : kept.u)
      right.append(kept.vt)
      values += kept.singularValues.map { $0 * term.factor.magnitude }
    }
    guard !left.isEmpty else {
      return Pair(
        a: Matrix(rows: 0, columns: terms[0].a.columns),
        b: Matrix(rows: terms[0].b.rows, columns: 0))
    }
    let u = try Matrix(joining: left).polarFactor()
    let vt = try Matrix(stacking: right).polarFactor()
    let roots = values.map { $0.squareRoot() }
    return Pair(a: vt.scaled(rows: roots), b: u.scaled(columns: roots))
  }
}

extension Matrix<Double> {
  /// The nearest matrix with orthonormal columns, or rows: U·Vᵀ of its decomposition.
  fileprivate func polarFactor() throws(PeftoolError) -> Matrix {
    let svd = try SVD(self)
    return product(svd.u, svd.vt)
  }
}
