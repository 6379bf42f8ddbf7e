import Adapters
import LinearAlgebra
import Testing

@testable import Models
@testable import Training

@Suite struct RankSearchTests {
  /// The singular values that are planted.
  private static func values(_ rank: Int) -> [Double] { (0..<rank).map { 1 - 0.15 * Double($0) } }

  /// A layer (19 inputs, 23 outputs) with an adapter of 6 rows, whose B·A has the given rank.
  private static func layer(rank: Int, seed: UInt64) throws -> (module: String, adapter: LoRA) {
    let random = RandomNumbers(seed: seed, stream: 1)
    func matrix(_ rows: Int, _ columns: Int, _ first: Int) -> Matrix<Double> {
      Matrix(
        rows: rows, columns: columns,
        elements: (0..<rows * columns).map { random.normal(first + $0) })
    }
    let a = matrix(6, 19, 0)
    let space = QR(a.transposed())
    var p = QR(matrix(23, rank, 1000)).q
    for row in 0..<23 {
      for (column, value) in values(rank).enumerated() { p[row, column] *= value }
    }
    let core = QR(matrix(6, rank, 5000)).q
    // B·A = P·coreᵀ·Qᵀ with A = Rᵀ·Qᵀ, so that Bᵀ = R⁻¹·core·Pᵀ.
    let r = try SVD(space.r)
    var inverse = r.vt.transposed()
    for row in 0..<6 {
      for column in 0..<6 { inverse[row, column] /= r.singularValues[column] }
    }
    let b = product(
      product(product(inverse, r.u, transposing: .right), core), p, transposing: .right)
    let name = "layers.\(seed)"
    return (
      name,
      LoRA(
        a: TrainableParameter(name + ".a", Rows(a.elements.map { Float($0) }, columns: 19)),
        b: TrainableParameter(name + ".b", Rows(b.elements.map { Float($0) }, columns: 23)),
        scaling: 2)
    )
  }

  private static func update(_ adapter: LoRA) -> Matrix<Double> {
    func matrix(_ rows: Rows) -> Matrix<Double> {
      Matrix(
        Matrix<Float>(rows: rows.count, columns: rows.columns, elements: rows.values))
    }
    return product(matrix(adapter.b.values), matrix(adapter.a.values), transposing: .left)
  }

  private static func search(
    _ layers: [(module: String, adapter: LoRA)], _ criterion: RankSearch.Criterion,
    _ optimizer: AdamW? = nil
  ) throws -> RankSearch {
    let search = try RankSearch(
      layers, .init(initialRank: 6, criterion: criterion, stepCount: 2))
    let team = ThreadTeam(count: 1)
    try search.afterUpdate(
      step: 0, rate: 1, optimizer ?? AdamW(layers.flatMap(\.adapter.parameters), .init()), team)
    return search
  }

  /// Planted ranks are found by each criterion, and nothing else of the update changes.
  @Test(arguments: [
    RankSearch.Criterion.each(.energy(0.999)), .each(.effective), .all(.parameters(42 * 9)),
    .all(.meanRank(2.25)),
  ])
  func plantedRanksAreFound(criterion: RankSearch.Criterion) throws {
    let ranks = [1, 4, 2, 2]
    let layers = try ranks.enumerated().map { try Self.layer(rank: $1, seed: UInt64($0)) }
    let before = layers.map { Self.update($0.adapter) }
    let lengths = layers.map { $0.adapter.a.values.sumOfProducts($0.adapter.a.values) }
    let search = try Self.search(layers, criterion)
    #expect(search.findings.map(\.rank) == ranks)
    #expect(layers.map(\.adapter.keptRanks.count) == ranks)
    for (place, layer) in layers.enumerated() {
      let after = Self.update(layer.adapter)
      for (one, other) in zip(after.elements, before[place].elements) {
        #expect(abs(one - other) < 1e-6)
      }
      // Rows of A keep the length that they had in the mean.
      let length = layer.adapter.a.values.sumOfProducts(layer.adapter.a.values)
      #expect(abs(length - lengths[place] * Double(ranks[place]) / 6) < 1e-4 * lengths[place])
      let finding = search.findings[place]
      #expect(abs(finding.energy - 1) < 1e-5)
      let values = Self.values(ranks[place])
      #expect(abs(finding.effectiveRank - RankChoice.effectiveRank(of: values)) < 1e-3)
      let norm = values.reduce(0) { $0 + $1 * $1 }.squareRoot()
      #expect(abs(finding.norm - 2 * norm) < 1e-5)
    }
  }

  @Test func fewerRanksAreTheNearest() throws {
    let layer = try Self.layer(rank: 5, seed: 7)
    for column in 0..<23 { layer.adapter.b.values[1, column] *= 3 }
    let svd = try SVD(Self.update(layer.adapter))
    _ = try Self.search([layer], .all(.meanRank(2)))
    let nearest = svd.truncated(to: 2)
    var scaled = nearest.vt
    for row in 0..<2 {
      for column in 0..<19 { scaled[row, column] *= nearest.singularValues[row] }
    }
    let expected = product(nearest.u, scaled)
    for (one, other) in zip(Self.update(layer.adapter).elements, expected.elements) {
      #expect(abs(one - other) < 1e-5)
    }
  }

  /// The moments become what they were with the turned factors from the start: of the loss
  /// Σ G∘(B·A) A's gradient is Bᵀ·G, and B's is G·Aᵀ.
  @Test func momentsAreTurnedWithTheFactors() throws {
    let layer = try Self.layer(rank: 5, seed: 3)
    let (a, b) = (layer.adapter.a, layer.adapter.b)
    let random = RandomNumbers(seed: 5, stream: 2)
    let g = Rows((0..<23 * 19).map { Float(random.normal($0)) }, columns: 19)
    func setGradients() {
      for rank in 0..<6 {
        for column in 0..<19 {
          a.gradient[rank, column] = (0..<23).reduce(0) {
            $0 + b.values[rank, $1] * g[$1, column]
          }
        }
        for row in 0..<23 {
          b.gradient[rank, row] = (0..<19).reduce(0) { $0 + a.values[rank, $1] * g[row, $1] }
        }
      }
    }
    setGradients()
    let optimizer = AdamW([a, b], .init())
    optimizer.step(rates: [0, 0], ThreadTeam(count: 1))
    _ = try Self.search([layer], .each(.fixed(4)), optimizer)
    setGradients()
    let rows = optimizer.state.compactMap { item in
      if case .floats(let rows) = item.values { rows } else { nil }
    }
    for (parameter, first, second) in [(a, rows[0], rows[1]), (b, rows[2], rows[3])] {
      for rank in 0..<6 {
        for column in 0..<parameter.values.columns {
          let expected = rank < 4 ? 0.1 * parameter.gradient[rank, column] : 0
          #expect(abs(first[rank, column] - expected) < 1e-5)
          #expect(rank < 4 ? second[rank, column] > 0 : second[rank, column] == 0)
        }
      }
    }
  }

  @Test func aBudgetBelowRankOneIsRefused() throws {
    let layers = [try Self.layer(rank: 1, seed: 0), try Self.layer(rank: 1, seed: 1)]
    #expect {
      try RankSearch(
        layers, .init(initialRank: 6, criterion: .all(.parameters(83)), stepCount: 10))
    } throws: { error in
      "\(error)".contains("rank 1 in each of 2 modules takes 84 parameters, the budget is 83")
    }
  }
}
