import LinearAlgebra
package import Models

/// The memory of training by its parts, in bytes, by sizes alone: of a trainer that there is, or of one
/// that is planned.
package struct TrainingSize: Equatable, Sendable {
  /// The frozen weights.
  package let frozen: Int
  /// What is trained, and what an adapter has beside it.
  package let trained: Int
  /// The gradients.
  package let gradients: Int
  /// The optimizer's moments.
  package let moments: Int
  /// What the method remembers.
  package let method: Int

  /// What a trainer has beside the frozen weights.
  package var trainerByteCount: Int { trained + gradients + moments + method }

  /// - Parameter threads: the threads, each with a scratch of its own.
  package init(_ model: ModelSize, _ settings: MethodSettings, isEightBit: Bool, threads: Int) {
    frozen = model.frozenByteCount
    trained = model.trainedByteCount
    gradients = model.gradientByteCount
    moments = AdamW.byteCount(of: settings.movedCounts(model), isEightBit: isEightBit)
    method = settings.byteCount(model, threads: threads)
  }
}

extension MethodSettings {
  /// The matrices whose gradients are projected.
  private static func projected(
    _ model: ModelSize, _ settings: GaLore.Settings
  ) -> [ProjectedMatrix.Size] {
    model.trainedWeights.filter(\.isOfLayer).map {
      ProjectedMatrix.Size($0.shape[0], $0.shape[1], settings)
    }
  }

  /// The numbers of each parameter that the optimizer moves: as `TrainingMethod.moved`.
  fileprivate func movedCounts(_ model: ModelSize) -> [Int] {
    let moved: [Int]
    switch self {
    case .galore(let settings): moved = Self.projected(model, settings).map(\.reducedCount)
    case .shira(let settings): moved = settings.counts(model)
    case .lora, .loraFA, .qaLoRA, .adaLoRA, .rankSearch, .sparse, .full:
      return model.parameterCounts
    }
    return moved + model.trainedWeights.filter { !$0.isOfLayer }.map(\.elementCount)
  }

  /// The bytes that a method takes beside the parameters and the optimizer.
  fileprivate func byteCount(_ model: ModelSize, threads: Int) -> Int {
    switch self {
    case .lora, .qaLoRA, .full: 0
    // A square for each adapter.
    case .loraFA: 4 * model.adapters.reduce(0) { $0 + $1.rank * $1.rank }
    // Two averages of each number, and which singular values are kept.
    case .adaLoRA:
      4 * model.adapters.reduce(0) { $0 + 2 * $1.parameterCounts.reduce(0, +) + $1.rank }
    // What each layer has got.
    case .rankSearch: 4 * RankSearch.factCount * model.adapters.count
    // Whether an entry is left.
    case .sparse:
      4 * model.adapters.reduce(0) { $0 + $1.rank * ($1.inputs / $1.groupSize + $1.outputs) }
    case .shira(let settings):
      SparseMatrix.byteCountOfEntry * settings.counts(model).reduce(0, +)
    case .galore(let settings):
      Self.projected(model, settings).reduce(0) { $0 + $1.byteCount }
        + 4 * threads * TeamProduct.floatCountOfThread
    }
  }

  /// The numbers that the optimizer moves.
  func movedNumbers(_ model: ModelSize) -> Double {
    movedCounts(model).reduce(0) { $0 + Double($1) }
  }

  /// The numbers that are trained: of what has places in the weights, those there.
  package func trainedCount(_ model: ModelSize) -> Int {
    if case .shira(let settings) = self { return settings.counts(model).reduce(0, +) }
    return model.parameterCounts.reduce(0, +)
  }

  /// Whether it is AdaLoRA.
  package var isAdaLoRA: Bool { if case .adaLoRA = self { true } else { false } }

  /// The numbers of all matrices whose gradients are projected.
  package func projectedCount(_ model: ModelSize) -> Int {
    guard case .galore(let settings) = self else { return 0 }
    return Self.projected(model, settings).reduce(0) { $0 + $1.m * $1.n }
  }

  /// The numbers of their projected gradients.
  package func reducedCount(_ model: ModelSize) -> Int {
    guard case .galore(let settings) = self else { return 0 }
    return Self.projected(model, settings).reduce(0) { $0 + $1.reducedCount }
  }

  /// The numbers of the vectors by which they are projected.
  package func projectorCount(_ model: ModelSize) -> Int {
    guard case .galore(let settings) = self else { return 0 }
    return Self.projected(model, settings).reduce(0) { $0 + $1.projectorCount }
  }

  /// The operations of GaLore's products in a step: a gradient into its subspace, and the step back.
  func projectionOperations(_ model: ModelSize) -> Double {
    guard case .galore(let settings) = self else { return 0 }
    return Self.projected(model, settings).reduce(0) { sum, size in
      sum + 4 * Double(size.m) * Double(size.n) * Double(size.rank)
        * (size.sides.0 && size.sides.1 ? 2 : 1)
    }
  }

  /// The operations of finding GaLore's subspaces: 6·m·n² + 20·n³ of each matrix, n its shorter side.
  func subspaceOperations(_ model: ModelSize) -> Double {
    guard case .galore(let settings) = self else { return 0 }
    return Self.projected(model, settings).reduce(0) { sum, size in
      let (long, short) = (Double(max(size.m, size.n)), Double(min(size.m, size.n)))
      return sum + 6 * long * short * short + 20 * short * short * short
    }
  }

  /// The bytes of a step's own work at its peak, while nothing else of it is done: of GaLore the copies
  /// of a gradient in which each thread looks for singular vectors.
  package func scratchByteCount(_ model: ModelSize, threads: Int) -> Int {
    guard case .galore(let settings) = self else { return 0 }
    let largest = Self.projected(model, settings).map(\.decompositionByteCount).max() ?? 0
    return threads * largest
  }
}

extension SparseWeights.Settings {
  /// The entries of each matrix that are trained.
  fileprivate func counts(_ model: ModelSize) -> [Int] {
    model.trainedWeights.filter(\.isOfLayer).map { rank * ($0.shape[0] + $0.shape[1]) }
  }
}

extension ProjectedMatrix.Size {
  /// The bytes in which the vectors are looked for: the gradient twice, what `sgesdd` leaves, U and Vᵀ,
  /// and its work, of the shorter side's square four times as much.
  fileprivate var decompositionByteCount: Int {
    let side = min(m, n)
    return 4 * (2 * m * n + (m + n) * side + 4 * side * side)
  }
}
