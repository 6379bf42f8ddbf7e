import LinearAlgebra
import Testing

@testable import Models

/// The mask of some tokens' inputs to a layer.
private func mask(
  _ dropout: Dropout, tokens: Int, inputs: Int, module: String = "l", probability: Double = 0.3
) -> Rows {
  let mask = Rows(tokens, inputs)
  dropout.fill(mask, tokens: 0..<tokens, module: module, probability: probability)
  return mask
}

/// What a layer gives with some inputs of its adapter left out, in f64.
///
/// `torch.nn.functional.dropout` before A, and DoRA as PEFT's `DoraLinearLayer.forward` has it:
/// y = W·x + b + (g − 1)∘(W·x̃) + g∘(s·B·A·x̃).
private func forward(_ twin: LayerTwin, _ x: [Double], mask: [Double], bias: [Double]) -> [Double] {
  let dropped = zip(x, mask).map { $0 * $1 }
  return (0..<x.count / twin.inputs).flatMap { token in
    (0..<twin.outputs).map { row in
      let range = token * twin.inputs..<(token + 1) * twin.inputs
      let w = Array(twin.w[row * twin.inputs..<(row + 1) * twin.inputs])
      let (own, left) = (Array(x[range]), Array(dropped[range]))
      var update = bias.isEmpty ? 0 : twin.scaling * bias[row]
      for k in 0..<twin.rank {
        let a = Array(twin.appliedA[k * twin.inputs..<(k + 1) * twin.inputs])
        update += twin.scaling * twin.b[k * twin.outputs + row] * dot(a, left)
      }
      let y = twin.bias[row] + dot(w, own)
      guard !twin.m.isEmpty else { return y + update }
      let gain = twin.m[row] / twin.norms[row]
      return y + (gain - 1) * dot(w, left) + gain * update
    }
  }
}

private struct DroppingLayer: Sendable, CustomTestStringConvertible {
  var outputs = 40
  var inputs = 30
  var isDoRA = false
  var hasBias = false
  var groupSize = 1

  var testDescription: String {
    "\(outputs)x\(inputs)/\(groupSize) \(isDoRA ? "DoRA" : "LoRA") \(hasBias)"
  }

  func make(dropout: Double) throws -> Projection {
    let (rank, seed) = (3, 5)
    let weight = try frozenWeight(
      Values("w", [outputs, inputs], randoms(outputs * inputs, seed: seed)))
    let magnitude = Rows(randoms(outputs, seed: seed + 3).map { 3 + $0 }, columns: outputs)
    return Projection(
      "layer", weight, bias: randomRows(1, outputs, seed: seed + 4),
      adapter: LoRA(
        a: TrainableParameter("a", randomRows(rank, inputs / groupSize, seed: seed + 1)),
        b: TrainableParameter("b", randomRows(rank, outputs, seed: seed + 2)),
        magnitude: isDoRA ? TrainableParameter("m", magnitude) : nil,
        bias: hasBias
          ? TrainableParameter("bias", randomRows(1, outputs, seed: seed + 6)) : nil,
        groupSize: groupSize, scaling: 1.5, dropout: dropout))
  }
}

private let layers: [DroppingLayer] = [
  .init(), .init(isDoRA: true), .init(hasBias: true), .init(groupSize: 6),
  // More than a tile.
  .init(outputs: 210, inputs: 300), .init(outputs: 300, inputs: 270, isDoRA: true),
]

@Suite struct DropoutTests {
  @Test func masksAreThoseOfTheirNumbers() {
    let found = mask(Dropout(seed: 0x1234_5678_9ABC, step: 3, batch: 2), tokens: 5, inputs: 70)
    let stream = RandomNumbers.stream(named: "l") &+ 3 &* 0x9e37_79b9_7f4a_7c15
    let key = SIMD2<UInt32>(0x5678_9ABC, 0x1234)
    let kept = (0.7 * 65_536).rounded()
    for row in 0..<5 {
      for column in 0..<70 {
        let block = Philox.block(
          counter: [
            UInt32(row * 9 + column / 8), 2, UInt32(truncatingIfNeeded: stream),
            UInt32(stream >> 32),
          ], key: key)
        let half = block[column % 8 / 2] >> UInt32(column % 2 * 16) & 0xFFFF
        #expect(found[row, column] == (Double(half) < kept ? Float(65_536 / kept) : 0))
      }
    }
  }

  @Test func aMaskLeavesOutItsShare() {
    for probability in [0.05, 0.5, 0.9] {
      let values = mask(
        Dropout(seed: 1, step: 1, batch: 0), tokens: 400, inputs: 250, probability: probability
      ).values
      let share = Double(values.count { $0 == 0 }) / Double(values.count)
      // Six deviations of 100,000 numbers.
      #expect(abs(share - probability) < 6 * (probability * (1 - probability) / 1e5).squareRoot())
      #expect(Set(values).count == 2)
      #expect(abs(Double(values.max() ?? 0) * (1 - probability) - 1) < 1e-4)
    }
  }

  @Test func masksDifferByEachOfTheirNumbers() {
    let first = mask(Dropout(seed: 1, step: 1, batch: 0), tokens: 9, inputs: 40)
    let others = [
      mask(Dropout(seed: 2, step: 1, batch: 0), tokens: 9, inputs: 40),
      mask(Dropout(seed: 1, step: 2, batch: 0), tokens: 9, inputs: 40),
      mask(Dropout(seed: 1, step: 1, batch: 1), tokens: 9, inputs: 40),
      mask(Dropout(seed: 1, step: 1, batch: 0), tokens: 9, inputs: 40, module: "m"),
    ]
    for other in others { #expect(other.values != first.values) }
    let later = mask(Dropout(seed: 1, step: 1, batch: 0).from(4), tokens: 5, inputs: 40)
    #expect(later.values == first.rows(4..<9).values)
  }

  @Test(arguments: layers) fileprivate func layersAreTheirFormulas(layer: DroppingLayer) throws {
    let projection = try layer.make(dropout: 0.3)
    let group = ProjectionGroup(projections: [projection])
    let dropout = Dropout(seed: 4, step: 2, batch: 1)
    // More than are taken at a time, of layers that are not large.
    let count = layer.outputs > 100 ? 3 : 70
    let (x, y) = (randomRows(count, layer.inputs, seed: 7), Rows(count, layer.outputs))
    let work = workspace(masked: group.maskedInputs)
    group.forward(x, into: [y], work.dropping(dropout))
    let own = mask(dropout, tokens: count, inputs: layer.inputs, module: "layer").doubles
    let bias = projection.adapter?.bias?.values.doubles ?? []
    let expected = forward(LayerTwin(projection), x.doubles, mask: own, bias: bias)
    #expect(error(y.values, expected) < 2 * f32Tolerance)
    // Without dropout, which is so in evaluation, all is there.
    group.forward(x, into: [y], work)
    let ones = [Double](repeating: 1, count: own.count)
    let whole = forward(LayerTwin(projection), x.doubles, mask: ones, bias: bias)
    #expect(error(y.values, whole) < 2 * f32Tolerance)
  }

  /// Derivatives of Σ dy·y by each factor, and by x.
  @Test(arguments: layers) fileprivate func gradientsAreDerivatives(layer: DroppingLayer) throws {
    let projection = try layer.make(dropout: 0.4)
    let adapter = try #require(projection.adapter)
    let group = ProjectionGroup(projections: [projection])
    let dropout = Dropout(seed: 9, step: 1, batch: 0)
    let (x, dy) = (
      randomRows(2, layer.inputs, seed: 7), randomRows(2, layer.outputs, seed: 8)
    )
    let (y, dx) = (Rows(2, layer.outputs), Rows(2, layer.inputs))
    let work = workspace(masked: group.maskedInputs).dropping(dropout)
    group.forward(x, into: [y], work)
    let given = dy.doubles
    group.backward(x, [dy], ys: [nil], into: dx, work)
    adapter.completeGradients()
    let own = mask(
      dropout, tokens: 2, inputs: layer.inputs, module: "layer", probability: 0.4
    ).doubles
    let twin = LayerTwin(projection)
    let bias = adapter.bias?.values.doubles ?? []
    func value(_ twin: LayerTwin, _ x: [Double], _ bias: [Double]) -> Double {
      dot(given, forward(twin, x, mask: own, bias: bias))
    }
    /// The derivative in a random direction, which all numbers have a part in.
    func compare(_ found: Rows, _ moved: ([Double]) -> Double) {
      let direction = randoms(found.count * found.columns, seed: 11).map(Double.init)
      let expected = centralDifferences(at: [0]) { step in
        moved(direction.map { $0 * step[0] })
      }
      // As a part of what the sum goes through, for much of it may cancel.
      let size = zip(found.doubles, direction).reduce(0) { $0 + abs($1.0 * $1.1) }
      #expect(error([dot(found.doubles, direction)], expected, of: size) < f32Tolerance)
    }
    let parts: [(TrainableParameter?, WritableKeyPath<LayerTwin, [Double]>)] = [
      (adapter.a, \.a), (adapter.b, \.b), (adapter.magnitude, \.m),
    ]
    for case (let parameter?, let part) in parts {
      compare(parameter.gradient) { step in
        var moved = twin
        moved[keyPath: part] = zip(twin[keyPath: part], step).map(+)
        return value(moved, x.doubles, bias)
      }
    }
    if let parameter = adapter.bias {
      compare(parameter.gradient) { value(twin, x.doubles, zip(bias, $0).map(+)) }
    }
    compare(dx) { value(twin, zip(x.doubles, $0).map(+), bias) }
  }

  /// A layer with dropout, one without, and one without an adapter, of one input.
  @Test func threadsChangeNoBit() throws {
    let plain = try LayerCase(outputs: 33, rank: 2).make("b", inputs: 30, seed: 50)
    let bare = try LayerCase(outputs: 21).make("c", inputs: 30, seed: 60)
    let group = ProjectionGroup(projections: [
      try DroppingLayer(isDoRA: true).make(dropout: 0.3), plain, bare,
    ])
    func bits(_ threads: Int) -> [UInt32] {
      let work = workspace(threads: threads, masked: group.maskedInputs)
        .dropping(Dropout(seed: 9, step: 1, batch: 0))
      let x = randomRows(150, 30, seed: 1)
      let ys = group.projections.map { Rows(150, $0.outputs) }
      let dys = group.projections.enumerated().map { randomRows(150, $1.outputs, seed: $0) }
      let dx = Rows(150, 30)
      group.forward(x, into: ys, work)
      group.backward(x, dys, ys: ys, into: dx, work)
      let gradients = group.projections.flatMap { projection in
        (projection.adapter?.parameters ?? []).flatMap { parameter in
          defer { parameter.gradient.clear() }
          return parameter.gradient.bits
        }
      }
      return ys.flatMap(\.bits) + dx.bits + gradients
    }
    let expected = bits(1)
    for threads in [2, 3, 7] { #expect(bits(threads) == expected, "\(threads)") }
  }

  /// A mask of one token is the same in a whole pass and where it is computed a second time.
  @Test(arguments: [false, true]) func checkpointedRunsAreThoseThatKeepEverything(
    isDoRA: Bool
  ) throws {
    let model = try TinyModel(isDoRA: isDoRA, dropout: 0.25).load()
    let batch = randomBatch([70, 5, 50])
    let dropout = Dropout(seed: 3, step: 1, batch: 0)
    func run(_ keeping: LossPass.Keeping, _ dropout: Dropout?) -> ([Double], [Float]) {
      let pass = LossPass(
        model, team: ThreadTeam(count: 2), tokens: 125, longest: 70, keeping: keeping)
      let losses = pass.addGradients(batch, scale: 0.25, dropout: dropout)
      return (losses, model.takeGradients())
    }
    let kept = run(.everything, dropout)
    #expect(kept == run(.inputs, dropout))
    #expect(kept.0 != run(.everything, nil).0)
    let other = Dropout(seed: 3, step: 2, batch: 0)
    #expect(kept.0 != run(.everything, other).0)
  }
}
