import Fixtures
import LinearAlgebra
import Testing

@testable import Models

/// How a layer of a group is made up.
struct LayerCase: Sendable {
  let outputs: Int
  var rank = 0
  var isDoRA = false
  var hasBias = false
  var groupSize = 1

  func make(_ name: String, inputs: Int, seed: Int) throws -> Projection {
    let weight = try frozenWeight(
      Values("w", [outputs, inputs], randoms(outputs * inputs, seed: seed)))
    var adapter: LoRA?
    if rank > 0 {
      let magnitude = Rows(
        randoms(outputs, seed: seed + 3).map { 3 + $0 }, columns: outputs)
      adapter = LoRA(
        a: TrainableParameter("a", randomRows(rank, inputs / groupSize, seed: seed + 1)),
        b: TrainableParameter("b", randomRows(rank, outputs, seed: seed + 2)),
        magnitude: isDoRA ? TrainableParameter("m", magnitude) : nil,
        groupSize: groupSize, scaling: 1.5)
    }
    return Projection(
      name, weight, bias: hasBias ? randomRows(1, outputs, seed: seed + 4) : nil,
      adapter: adapter)
  }
}

/// Tiles of 256 inputs and up to 192 outputs, and what does not fill one.
private let groups: [(inputs: Int, layers: [LayerCase])] = [
  (300, [.init(outputs: 200, rank: 4), .init(outputs: 33, hasBias: true)]),
  (
    257,
    [
      .init(outputs: 50, rank: 3, isDoRA: true, hasBias: true),
      .init(outputs: 7, rank: 1, hasBias: true), .init(outputs: 20, rank: 2, isDoRA: true),
    ]
  ),
  (16, [.init(outputs: 410, rank: 17)]),
  (288, [.init(outputs: 70, rank: 3, groupSize: 32), .init(outputs: 9, rank: 2, groupSize: 96)]),
  (5, [.init(outputs: 1, rank: 1, isDoRA: true)]),
]

/// What a group gives forward and backward.
private struct Results {
  var ys: [Rows] = []
  var dx: Rows
  var gradients: [[Rows]] = []

  init(
    _ group: ProjectionGroup, _ x: Rows, dys: [Rows], threads: Int
  ) {
    let work = workspace(threads: threads)
    ys = group.projections.map { Rows(x.count, $0.outputs) }
    dx = randomRows(x.count, x.columns, seed: 8)
    group.forward(x, into: ys, work)
    for projection in group.projections {
      for parameter in projection.adapter?.parameters ?? [] { parameter.gradient.clear() }
    }
    let own = dys.map { dy in
      let copy = Rows(dy.count, dy.columns)
      copy.copy(from: dy)
      return copy
    }
    group.backward(x, own, ys: ys, into: dx, work)
    for projection in group.projections { projection.adapter?.completeGradients() }
    gradients = group.projections.map { projection in
      (projection.adapter?.parameters ?? []).map { parameter in
        let copy = Rows(parameter.gradient.count, parameter.gradient.columns)
        copy.copy(from: parameter.gradient)
        return copy
      }
    }
  }

  var bits: [UInt32] {
    ys.flatMap(\.bits) + dx.bits + gradients.flatMap { $0.flatMap(\.bits) }
  }
}

@Suite struct ProjectionGroupTests {
  private func makeGroup(_ place: Int) throws -> ProjectionGroup {
    let (inputs, layers) = groups[place]
    return ProjectionGroup(
      projections: try layers.enumerated().map {
        try $1.make("layer\($0)", inputs: inputs, seed: 100 * place + 10 * $0)
      })
  }

  private func makeInputs(_ group: ProjectionGroup, count: Int) -> (x: Rows, dys: [Rows]) {
    (
      randomRows(count, group.inputs, seed: 7),
      group.projections.enumerated().map { randomRows(count, $1.outputs, seed: 20 + $0) }
    )
  }

  @Test(arguments: groups.indices) func layersAreTheirFormulas(place: Int) throws {
    let group = try makeGroup(place)
    let count = 70
    let (x, dys) = makeInputs(group, count: count)
    let results = Results(group, x, dys: dys, threads: 2)
    var dx = [Double](repeating: 0, count: count * group.inputs)
    for (layer, projection) in group.projections.enumerated() {
      let twin = LayerTwin(projection)
      #expect(error(results.ys[layer].values, twin.forward(x.doubles)) < f32Tolerance)
      let v = twin.effective
      let dy = dys[layer].doubles
      for token in 0..<count {
        for row in 0..<twin.outputs {
          let factor = dy[token * twin.outputs + row]
          for column in 0..<twin.inputs {
            dx[token * twin.inputs + column] += factor * v[row * twin.inputs + column]
          }
        }
      }
    }
    #expect(error(results.dx.values, dx) < f32Tolerance)
  }

  /// Derivatives of Σ dy·y, which is linear in each of A, B and m alone.
  @Test(arguments: groups.indices) func gradientsAreDerivatives(place: Int) throws {
    let group = try makeGroup(place)
    let (x, dys) = makeInputs(group, count: 3)
    let results = Results(group, x, dys: dys, threads: 2)
    for (layer, projection) in group.projections.enumerated() {
      guard let adapter = projection.adapter else {
        #expect(results.gradients[layer].isEmpty)
        continue
      }
      let twin = LayerTwin(projection)
      func differences(_ part: WritableKeyPath<LayerTwin, [Double]>, _ places: [Int]) -> [Double] {
        places.map { place in
          centralDifferences(at: [twin[keyPath: part][place]]) { value in
            var moved = twin
            moved[keyPath: part][place] = value[0]
            return dot(dys[layer].doubles, moved.forward(x.doubles))
          }[0]
        }
      }
      let parts: [WritableKeyPath<LayerTwin, [Double]>] = [\.a, \.b, \.m]
      for (found, part) in zip(results.gradients[layer], parts) {
        // A few of many.
        let count = found.count * found.columns
        let places = Array(stride(from: 0, to: count, by: max(1, count / 6)))
        let expected = differences(part, places)
        let values = found.values
        #expect(error(places.map { values[$0] }, expected) < 5 * f32Tolerance)
      }
      #expect(results.gradients[layer].count == (adapter.magnitude == nil ? 2 : 3))
    }
  }

  @Test(arguments: groups.indices) func threadsChangeNoBit(place: Int) throws {
    let group = try makeGroup(place)
    let (x, dys) = makeInputs(group, count: 130)
    let expected = Results(group, x, dys: dys, threads: 1).bits
    for threads in [2, 3, 7] {
      #expect(Results(group, x, dys: dys, threads: threads).bits == expected, "\(threads)")
    }
  }

  /// The promise of the doc comment, and what makes threads and tiles of no account.
  @Test func resultsAreChainsOfFusedMultiplyAdds() throws {
    let group = try makeGroup(0)
    let (x, dys) = makeInputs(group, count: 3)
    let results = Results(group, x, dys: dys, threads: 2)
    let weights = group.projections.map { projection in
      var v = projection.weight.values
      let adapter = projection.adapter
      for row in 0..<projection.outputs {
        for column in 0..<projection.inputs {
          guard let adapter else { continue }
          v[row * projection.inputs + column] += chains(adapter.rank) { k in
            (adapter.b.values[k, row], adapter.a.values[k, column] * adapter.scaling)
          }
        }
      }
      return v
    }
    for token in 0..<3 {
      for (layer, projection) in group.projections.enumerated() {
        for row in 0..<projection.outputs {
          let sum = chains(projection.inputs) { column in
            (x[token, column], weights[layer][row * projection.inputs + column])
          }
          #expect(results.ys[layer][token, row] == sum + (projection.bias?[0, row] ?? 0))
        }
      }
      for column in 0..<group.inputs {
        let sums = group.projections.enumerated().map { layer, projection in
          chains(projection.outputs) { row in
            (dys[layer][token, row], weights[layer][row * projection.inputs + column])
          }
        }
        #expect(results.dx[token, column] == sums.dropFirst().reduce(sums[0], +))
      }
    }
  }

  /// The sum of chains of 256 products.
  private func chains(_ count: Int, _ factors: (Int) -> (Float, Float)) -> Float {
    var total: Float?
    for part in stride(from: 0, to: count, by: 256) {
      var sum: Float = 0
      for place in part..<min(count, part + 256) {
        let (a, b) = factors(place)
        sum.addProduct(a, b)
      }
      total = total.map { $0 + sum } ?? sum
    }
    return total ?? 0
  }

  @Test func gradientsAreAddedToThoseThatAreThere() throws {
    let group = try makeGroup(1)
    let (x, dys) = makeInputs(group, count: 40)
    let once = Results(group, x, dys: dys, threads: 2).gradients
    let work = workspace()
    let ys = group.projections.map { Rows(x.count, $0.outputs) }
    group.forward(x, into: ys, work)
    // The gradients of the pass above are still there.
    group.backward(x, dys, ys: ys, into: nil, work)
    for (layer, projection) in group.projections.enumerated() {
      for (parameter, first) in zip(projection.adapter?.parameters ?? [], once[layer]) {
        #expect(error(parameter.gradient.values, first.doubles.map { 2 * $0 }) < f32Tolerance)
      }
    }
  }

  @Test func outputsAreAddedToWhatIsThere() throws {
    let group = try makeGroup(2)
    let x = randomRows(4, group.inputs, seed: 1)
    let (y, sum) = (Rows(4, 410), randomRows(4, 410, seed: 2))
    let before = sum.doubles
    let work = workspace()
    group.forward(x, into: [y], work)
    group.forward(x, into: [sum], adding: true, work)
    #expect(error(sum.values, zip(y.doubles, before).map { $0 + $1 }) < f32Tolerance)
  }

  @Test func refreshFollowsTheFactors() throws {
    let layer = try LayerCase(outputs: 9, rank: 2, isDoRA: true).make("l", inputs: 6, seed: 3)
    let adapter = try #require(layer.adapter)
    let group = ProjectionGroup(projections: [layer])
    let x = randomRows(2, 6, seed: 1)
    for parameter in adapter.parameters { parameter.values[0, 1] += 0.5 }
    adapter.refresh()
    let y = Rows(2, 9)
    group.forward(x, into: [y], workspace())
    #expect(error(y.values, LayerTwin(layer).forward(x.doubles)) < f32Tolerance)
  }
}
