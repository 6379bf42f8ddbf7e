import Checkpoints
import Files
import LinearAlgebra
import Tensors

/// A layer that has a pair: what it is, and its shape.
struct Layer: Sendable {
  /// The module's path.
  let path: String
  let kind: LowRankAdapter.Kind
  let outputCount: Int
  /// The inputs; of a convolution the channels and the kernel.
  let inputShape: [Int]
}

extension LowRankAdapter.Module {
  /// What it changes.
  var layer: Layer {
    Layer(path: path, kind: kind, outputCount: outputCount, inputShape: Array(a.shape.dropFirst()))
  }
}

/// A module's combined update, in the shapes and the F32 that PEFT has.
struct CombinedModule: Sendable {
  private(set) var path: String
  private(set) var kind: LowRankAdapter.Kind
  /// (rank, in…).
  private(set) var aShape: [Int]
  /// (out, rank…).
  private(set) var bShape: [Int]
  private(set) var a: [Float]
  private(set) var b: [Float]
  private(set) var bias: [Float]?
  /// DoRA's m.
  let magnitude: [Float]?
  let result: ModuleResult

  /// Rounds an update once.
  ///
  /// - Throws: `different` where a number is too large for F32.
  init(
    _ layer: Layer, _ pair: Pair, bias: [Double]?, magnitude: [Double]? = nil,
    _ result: ModuleResult
  ) throws(PeftoolError) {
    path = layer.path
    kind = layer.kind
    aShape = [pair.rank] + layer.inputShape
    bShape =
      [layer.outputCount, pair.rank]
      + Array(repeating: 1, count: max(0, layer.inputShape.count - 1))
    a = pair.a.elements.map(Float.init)
    b = pair.b.elements.map(Float.init)
    self.bias = bias?.map(Float.init)
    self.magnitude = magnitude?.map(Float.init)
    self.result = result
    let isFinite = [a, b, self.bias ?? [], self.magnitude ?? []].allSatisfy {
      $0.allSatisfy(\.isFinite)
    }
    guard isFinite else {
      throw PeftoolError(
        .different, "\(layer.path.printable) would have numbers that are too large for F32")
    }
  }

  /// Rounds an update that was cut.
  ///
  /// - Throws: as above.
  init(
    _ layer: Layer, _ truncation: Truncation, rankBefore: Int, bias: [Double]?,
    magnitude: [Double]? = nil, weightNorm: Double? = nil
  ) throws(PeftoolError) {
    let (energy, whole) = (truncation.energy, truncation.wholeEnergy)
    try self.init(
      layer, truncation.pair, bias: bias, magnitude: magnitude,
      ModuleResult(
        path: layer.path, rankBefore: rankBefore, rank: truncation.pair.rank,
        energyBefore: whole, energy: energy, lostEnergy: whole - energy, entries: nil,
        weightNorm: weightNorm))
  }
}

extension CombinedModule {
  /// The same without the bias.
  var withoutBias: CombinedModule {
    var copy = self
    copy.bias = nil
    return copy
  }

  /// An embedding's update as that of the output embedding, which shares the weight: A' = Bᵀ,
  /// B' = Aᵀ (`ensure_weight_tying`).
  func turnedAround(path: String) -> CombinedModule {
    var copy = self
    copy.path = path
    copy.kind = .linear
    (copy.aShape, copy.bShape) = (bShape.reversed(), aShape.reversed())
    copy.a = Matrix(rows: bShape[0], columns: bShape[1], elements: b).transposed().elements
    copy.b = Matrix(rows: aShape[0], columns: aShape[1], elements: a).transposed().elements
    return copy
  }
}

extension LowRankAdapter {
  /// The adapter that computed modules make up.
  ///
  /// - Throws: as of modules that are read.
  init(
    of modules: [CombinedModule], from sources: [any TensorSource]
  ) throws(PeftoolError) {
    // PEFT has biases for all layers or for none.
    let hasBias = modules.contains { $0.bias != nil }
    var tensors = ComputedTensors(of: sources)
    let places = modules.map { module in
      (
        a: tensors.append("\(module.path).a", shape: module.aShape, module.a),
        b: tensors.append("\(module.path).b", shape: module.bShape, module.b),
        bias: hasBias && module.kind != .embedding
          ? tensors.append(
            "\(module.path).bias", shape: [module.bShape[0]],
            module.bias ?? [Float](repeating: 0, count: module.bShape[0])) : nil,
        magnitude: module.magnitude.map {
          tensors.append("\(module.path).m", shape: [module.bShape[0]], $0)
        }
      )
    }
    var result: [LowRankAdapter.Module] = []
    for (module, place) in zip(modules, places) {
      result.append(
        try LowRankAdapter.Module(
          module.path, kind: module.kind, a: AdapterTensor(place.a, in: tensors),
          b: AdapterTensor(place.b, in: tensors),
          magnitude: place.magnitude.map { AdapterTensor($0, in: tensors) },
          bias: place.bias.map { AdapterTensor($0, in: tensors) },
          scaling: { (rank) throws(PeftoolError) in (1, Double(rank)) }))
    }
    try self.init(result)
  }
}

extension Pair {
  /// ‖B·A‖² = ⟨BᵀB, A·Aᵀ⟩.
  var energy: Double {
    // Of a rank beyond both sizes the product itself is the smaller.
    guard rank <= max(a.columns, b.rows) else {
      return product(b, a).elements.reduce(0) { $0 + $1 * $1 }
    }
    let left = product(b, b, transposing: .left)
    let right = product(a, a, transposing: .right)
    return max(0, zip(left.elements, right.elements).reduce(0) { $0 + $1.0 * $1.1 })
  }
}
