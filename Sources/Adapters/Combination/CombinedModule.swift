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

/// A module's update as it was computed, in f64.
struct ComputedModule: Sendable {
  let layer: Layer
  let pair: Pair
  let bias: [Double]?
  /// DoRA's m.
  let magnitude: [Double]?
  let result: ModuleResult
  /// The factor s that the result has on B·A and on the bias, which have it in them here; above 0.
  var scaling = 1.0

  init(
    _ layer: Layer, _ pair: Pair, bias: [Double]?, magnitude: [Double]? = nil,
    _ result: ModuleResult
  ) {
    self.layer = layer
    self.pair = pair
    self.bias = bias
    self.magnitude = magnitude
    self.result = result
  }

  /// An update that was cut.
  init(
    _ layer: Layer, _ truncation: Truncation, rankBefore: Int, bias: [Double]?,
    magnitude: [Double]? = nil, weightNorm: Double? = nil
  ) {
    let (energy, whole) = (truncation.energy, truncation.wholeEnergy)
    self.init(
      layer, truncation.pair, bias: bias, magnitude: magnitude,
      ModuleResult(
        path: layer.path, rankBefore: rankBefore, rank: truncation.pair.rank,
        energyBefore: whole, energy: energy, lostEnergy: whole - energy, entries: nil,
        weightNorm: weightNorm, spectrum: truncation.spectrum,
        parameterCount: truncation.pair.rank * (truncation.pair.b.rows + truncation.pair.a.columns)
      ))
  }
}

/// A module's update in the shapes that PEFT has, with numbers of one dtype.
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
  /// The factor s on B·A and on the bias.
  let scaling: Double
  let result: ModuleResult

  /// Rounds an update once, to a dtype whose every number F32 holds.
  ///
  /// - Throws: `different` where a number is too large for it.
  init(_ module: ComputedModule, as dtype: DType) throws(PeftoolError) {
    let layer = module.layer
    scaling = module.scaling
    // Half of it is taken off A, half off B.
    let pair = scaling == 1 ? module.pair : module.pair.divided(by: scaling)
    path = layer.path
    kind = layer.kind
    aShape = [pair.rank] + layer.inputShape
    bShape =
      [layer.outputCount, pair.rank]
      + Array(repeating: 1, count: max(0, layer.inputShape.count - 1))
    a = pair.a.elements.rounded(to: dtype)
    b = pair.b.elements.rounded(to: dtype)
    bias = module.bias?.map { $0 / module.scaling }.rounded(to: dtype)
    magnitude = module.magnitude?.rounded(to: dtype)
    result = module.result
    let isFinite = [a, b, bias ?? [], magnitude ?? []].allSatisfy { $0.allSatisfy(\.isFinite) }
    guard isFinite else {
      throw PeftoolError(
        .different,
        "\(layer.path.printable) would have numbers that are too large for \(dtype.rawValue)")
    }
  }
}

extension [Double] {
  /// The nearest numbers of a dtype, of equally near ones the even; F32 has to hold them all.
  func rounded(to dtype: DType) -> [Float] {
    guard dtype != .f32 else { return map(Float.init) }
    var bytes = [UInt8](repeating: 0, count: count * dtype.bitCount / 8)
    var span = bytes.mutableSpan
    // Any bit pattern is an element.
    var raw = unsafe span.mutableBytes
    Double.narrow(self.span, dtype, into: &raw, count: count)
    var values = [Float](repeating: 0, count: count)
    var floats = values.mutableSpan
    unsafe Float.widen(bytes.span.bytes, dtype, into: &floats, count: count)
    return values
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
          scaling: { (rank) throws(PeftoolError) in
            (module.scaling, module.scaling * Double(rank))
          }))
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
