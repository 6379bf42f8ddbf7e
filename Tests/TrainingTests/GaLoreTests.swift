import LinearAlgebra
import Testing

@testable import Models
@testable import Training

@Suite struct GaLoreTests {
  // One caller at a time, and tests run side by side: each has its own.
  private let team = ThreadTeam(count: 2)

  private static func random(_ rows: Int, _ columns: Int, seed: UInt64) -> Rows {
    let random = RandomNumbers(seed: seed, stream: 4)
    return Rows((0..<rows * columns).map { Float(random.normal($0)) }, columns: columns)
  }

  /// A gradient whose k-th singular value is about (k + 1)^(−1).
  private static func gradient(_ rows: Int, _ columns: Int) -> Rows {
    let count = min(rows, columns)
    let (left, right) = (random(count, rows, seed: 1), random(count, columns, seed: 2))
    for place in 0..<count {
      left.rows(place..<place + 1).scale(by: 1 / Float(place + 1) / Float(rows))
    }
    let result = Rows(rows, columns)
    TeamProduct(team: ThreadTeam(count: 2)).multiply(left, right, transposing: .left, into: result)
    return result
  }

  private static func settings(
    rank: Int, _ projection: GaLore.Projection, scale: Double = 1, gap: Int = 3
  ) -> GaLore.Settings {
    var settings = GaLore.Settings()
    (settings.rank, settings.projection, settings.scale, settings.gap) =
      (rank, projection, scale, gap)
    return settings
  }

  /// Vectors that a range finder has found (rank 16 of 320) and those of LAPACK (rank 64) are
  /// orthonormal, and hold as much of the gradient as the best of that rank.
  @Test(
    arguments: [(320, 520), (520, 320)],
    [(16, GaLore.Projection.standard), (64, .standard)]
      + [(16, .reverse), (16, .full), (64, .full)])
  func subspacesAreOrthonormalAndTheLargest(
    shape: (rows: Int, columns: Int), choice: (rank: Int, projection: GaLore.Projection)
  ) throws {
    let weight = TrainableParameter("w", Rows(shape.rows, shape.columns))
    weight.gradient.copy(from: Self.gradient(shape.rows, shape.columns))
    let item = ProjectedMatrix(weight, Self.settings(rank: choice.rank, choice.projection))
    try item.findSubspace()
    for side in [item.left, item.right].compactMap(\.self) {
      for row in 0..<choice.rank {
        for other in 0...row {
          let product = side.rows(row..<row + 1).sumOfProducts(side.rows(other..<other + 1))
          #expect(abs(product - (row == other ? 1 : 0)) < 1e-5)
        }
      }
    }
    item.project(by: TeamProduct(team: team))
    let values = try SVD.singularValues(
      of: Matrix<Double>(
        Matrix<Float>(
          rows: shape.rows, columns: shape.columns, elements: weight.gradient.values)))
    let best = values.prefix(choice.rank).reduce(0) { $0 + $1 * $1 }
    let kept = item.reduced.gradient.sumOfProducts(item.reduced.gradient)
    #expect(kept <= best * (1 + 1e-5) && kept > best * (1 - 2e-3))
  }

  /// Of full rank and with scale 1 GaLore is AdamW in a turned space: with the identity for P, which a
  /// diagonal gradient has, the very numbers of AdamW, whatever the steps between two subspaces.
  @Test(arguments: [1, 2, 200]) func ofFullRankItIsAdamW(gap: Int) throws {
    let size = 12
    var settings = AdamW.Settings()
    (settings.style, settings.epsilon) = (.transformers, 1e-6)
    let (own, plain) = (
      TrainableParameter("w", Self.random(size, size, seed: 3)),
      TrainableParameter("w", Self.random(size, size, seed: 3))
    )
    var galore = Self.settings(rank: size, .right, gap: gap)
    galore.weightDecay = 0.1
    settings.weightDecay = 0.1
    let method = GaLore([own], galore, team: team)
    let optimizer = AdamW(method.moved([own]), settings)
    let other = AdamW([plain], settings)
    for step in 0..<6 {
      for place in 0..<size {
        let value = Float(size - place) * (1 + 0.1 * Float(step))
        own.gradient[place, place] = value
        plain.gradient[place, place] = value
      }
      _ = try method.completeGradients(step: step, team)
      optimizer.step(rates: [0.01], team)
      method.afterUpdate(step: step, rate: 0.01, optimizer, team)
      other.step(rates: [0.01], team)
      own.gradient.clear()
    }
    for (one, another) in zip(own.values.values, plain.values.values) {
      #expect(abs(one - another) <= abs(another).ulp)
    }
  }

  /// What decays is what the rate says, where 1 − rate·decay would be rounded.
  @Test func decayIsNotRounded() throws {
    let weight = TrainableParameter("w", Rows([Float](repeating: 1, count: 4), columns: 2))
    var settings = Self.settings(rank: 1, .standard)
    settings.weightDecay = 0.1
    let method = GaLore([weight], settings, team: team)
    for column in 0..<2 { weight.values[0, column] = 1e-3 }
    method.afterUpdate(step: 0, rate: 1e-5, AdamW([], .init()), team)
    #expect(weight.values[0, 0] == Float(1e-3) - Float(1e-6) * Float(1e-3))
  }

  /// After so many steps and subspaces the change has no more ranks than they have together.
  @Test func theChangeHasTheRankOfItsSubspaces() throws {
    let weight = TrainableParameter("w", Rows(20, 30))
    let method = GaLore([weight], Self.settings(rank: 2, .standard, gap: 4), team: team)
    let optimizer = AdamW(method.moved([weight]), .init())
    for step in 0..<10 {
      weight.gradient.copy(from: Self.random(20, 30, seed: UInt64(50 + step)))
      _ = try method.completeGradients(step: step, team)
      optimizer.step(rates: [0.01], team)
      method.afterUpdate(step: step, rate: 0.01, optimizer, team)
    }
    let values = try SVD.singularValues(
      of: Matrix<Double>(Matrix<Float>(rows: 20, columns: 30, elements: weight.values.values)))
    #expect(values[5] > 1e-3 * values[0] && values[6] < 1e-5 * values[0])
  }
}
