import Adapters
import Files
import LinearAlgebra
import Models

/// A matrix of GaLore, and what is kept for it.
struct ProjectedMatrix {
  /// The matrix, (m, n).
  let weight: TrainableParameter
  /// The vectors of its sides: (r, m) and (r, n).
  let left, right: Rows?
  /// The step and R.
  let reduced: TrainableParameter
  /// With both sides, what lies between, (m, r).
  let between: Rows?

  init(_ weight: TrainableParameter, _ settings: GaLore.Settings) {
    let size = Size(weight.values.count, weight.values.columns, settings)
    let (m, n, rank, sides) = (size.m, size.n, size.rank, size.sides)
    self.weight = weight
    left = sides.0 ? Rows(rank, m) : nil
    right = sides.1 ? Rows(rank, n) : nil
    reduced = TrainableParameter(
      weight.name, Rows(sides.0 ? rank : m, sides.1 ? rank : n), isDecayed: false)
    between = sides.0 && sides.1 ? Rows(m, rank) : nil
  }

  /// The sizes of what is kept for a matrix (m, n).
  struct Size {
    let m, n: Int
    let rank: Int
    /// Whether the rows and the columns are projected.
    let sides: (Bool, Bool)

    init(_ m: Int, _ n: Int, _ settings: GaLore.Settings) {
      (self.m, self.n) = (m, n)
      rank = min(settings.rank, m, n)
      sides =
        switch settings.projection {
        case .standard: (m < n, m >= n)
        case .reverse: (m >= n, m < n)
        case .right: (false, true)
        case .left: (true, false)
        case .full: (true, true)
        }
    }

    /// The numbers of R, and so of each moment.
    var reducedCount: Int { (sides.0 ? rank : m) * (sides.1 ? rank : n) }
    /// The numbers of the vectors.
    var projectorCount: Int { rank * ((sides.0 ? m : 0) + (sides.1 ? n : 0)) }
    /// The bytes of the vectors, of R and the step, and of what lies between two sides.
    var byteCount: Int {
      let between = sides.0 && sides.1 ? m * rank : 0
      return 4 * (projectorCount + between + 2 * reducedCount)
    }
  }
}

extension ProjectedMatrix {
  /// Takes the largest singular vectors of the gradient.
  ///
  /// - Throws: as `Decomposition.largest`.
  func findSubspace() throws(PeftoolError) {
    let gradient = weight.gradient
    var decomposition = Decomposition()
    decomposition.isWide = false
    let svd = try decomposition.largest(
      left?.count ?? right?.count ?? 0,
      of: Matrix(gradient))
    if let left {
      for row in 0..<left.count {
        for column in 0..<left.columns { left[row, column] = svd.u[column, row] }
      }
      left.makeLargestPositive()
    }
    if let right {
      right.copy(from: svd.vt.elements)
      right.makeLargestPositive()
    }
  }

  /// R = P_left·G·P_rightᵀ, with the sides that there are.
  func project(by product: TeamProduct) {
    let gradient = weight.gradient
    switch (left, right) {
    case (let left?, nil): product.multiply(left, gradient, into: reduced.gradient)
    case (nil, let right?):
      product.multiply(gradient, right, transposing: .right, into: reduced.gradient)
    case (let left?, let right?):
      guard let between = between else { return }
      product.multiply(gradient, right, transposing: .right, into: between)
      product.multiply(left, between, into: reduced.gradient)
    case (nil, nil): preconditionFailure("a side is projected")
    }
  }

  /// W += P_leftᵀ·N·P_right, likewise.
  func moveWeight(by product: TeamProduct) {
    switch (left, right) {
    case (let left?, nil):
      product.multiply(
        left, reduced.values, transposing: .left, into: weight.values, adding: true)
    case (nil, let right?):
      product.multiply(reduced.values, right, into: weight.values, adding: true)
    case (let left?, let right?):
      guard let between = between else { return }
      product.multiply(left, reduced.values, transposing: .left, into: between)
      product.multiply(between, right, into: weight.values, adding: true)
    case (nil, nil): preconditionFailure("a side is projected")
    }
  }
}

extension Rows {
  /// Turns each row so that its first entry of largest magnitude is positive.
  fileprivate func makeLargestPositive() {
    for row in 0..<count {
      var largest: Float = 0
      for column in 0..<columns where abs(self[row, column]) > abs(largest) {
        largest = self[row, column]
      }
      if largest < 0 { rows(row..<row + 1).scale(by: -1) }
    }
  }
}
