import Tensors

extension Combination {
  /// What will become of a module.
  package struct PlannedModule: Equatable, Sendable {
    /// The module's path.
    package let path: String
    /// For each input the weight; nil where the module is no part of it, or its weight is 0.
    package let weights: [Double?]
    /// For each input the density; nil as for weights, and for methods that drop nothing.
    package let densities: [Double?]
    /// For each input the rank of its update; nil as for weights.
    package let ranks: [Int?]
    /// The rank of the result, or the largest that it can have.
    package let rank: Int
    /// Whether the rank depends on no number in the files.
    package let isRankKnown: Bool
    /// The bytes of the result's tensors, in F32, at that rank.
    package let byteCount: Int
  }

  /// What `run` would do, as far as the shapes tell; no numbers are read.
  package var plan: [PlannedModule] {
    let haveBias = modules.contains { $0.updates.contains { $0?.bias != nil } }
    return modules.map { module in
      let form = module.form
      let isPart = module.updates.map { $0 != nil }
      let (rank, isKnown) = plannedRank(of: module)
      let vectorCount =
        (haveBias && form.kind != .embedding ? 1 : 0) + (module.weight != nil ? 1 : 0)
      return PlannedModule(
        path: form.path, weights: byInput(zip(isPart, module.weights).map { $0 ? $1 : nil }),
        densities: byInput(
          zip(isPart, module.densities).map { $0 && settings.method.hasDensity ? $1 : nil }),
        ranks: byInput(module.updates.map { $0?.rank }), rank: rank, isRankKnown: isKnown,
        byteCount: (rank * (form.inputCount + form.outputCount) + vectorCount * form.outputCount)
          * MemoryLayout<Float>.size)
    }
  }

  /// What operands have, by inputs; nil for those that are left out.
  private func byInput<Value>(_ values: [Value?]) -> [Value?] {
    var list = [Value?](repeating: nil, count: inputs.count)
    for (place, value) in zip(inputPlaces, values) { list[place] = value }
    return list
  }

  /// The rank of a module's result, and whether it is that for sure.
  ///
  /// Of an update that is zero a decomposition leaves rank 1, whatever was asked for.
  private func plannedRank(of module: Module) -> (rank: Int, isKnown: Bool) {
    let ranks = module.updates.compactMap { $0?.rank }
    let sum = ranks.reduce(0, +)
    let largest = ranks.max() ?? 1
    let least = min(module.form.inputCount, module.form.outputCount)
    var (rank, isKnown) = (sum, true)
    switch settings.method {
    case _ where settings.method.isApart: return (largest, true)
    case _ where settings.method.isDense: (rank, isKnown) = (least, false)
    case .knots: (rank, isKnown) = (min(sum, least), false)
    case .tsv:
      rank = ranks.reduce(0) { $0 + max(1, min($1, least / ranks.count)) }
    default: break
    }
    let choice =
      settings.rank
      ?? (settings.method.isDense || settings.method == .svd ? .fixed(largest) : nil)
    switch choice {
    case nil: return (rank, isKnown)
    case .fixed(let most): return (max(1, min(most, rank, least)), false)
    default: return (max(1, min(rank, least)), false)
    }
  }
}
