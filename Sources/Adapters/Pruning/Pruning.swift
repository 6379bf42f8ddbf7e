import Checkpoints
package import Files
import JSON
import LinearAlgebra
package import Tensors

/// An adapter with less in it: without its small entries, and without modules that change little.
///
/// Where entries are dropped the arithmetic is f64, of whole updates f32, and the result is F32 with
/// a scaling of 1; ranks that are empty then are gone. Where modules alone are dropped the others
/// stay as they are, bit for bit. A module's `lora_bias` stays and goes with it, and counts as a
/// column of its change.
///
/// DoRA's magnitudes stay as they are without a base: each row of the merged weight keeps its length.
/// With one its scaling m / ‖W + s·B·A‖ stays, by another m: what is dropped is gone from W' − W, and
/// nothing else is changed. The norm of a DoRA module is that of W' − W, which takes the base.
///
/// Peak memory: the result, and for each thread a module's factors a few times, with a base a block of
/// the weight; where entries of whole updates are dropped those of a module, and what their
/// decomposition takes.
package struct Pruning: LowRankArithmetic, OperandArithmetic {
  /// The adapter, with a weight of 1.
  package let operands: [(operand: Operand, weight: Double?)]
  /// The model that it is for, where one was given.
  package let base: BaseModel?
  /// What the user should know.
  package let notes: [String]
  /// What is taken out.
  package let settings: PruningSettings
  private let weights: [BaseWeight]

  /// Plans a pruning; of the tensors nothing is read.
  ///
  /// - Parameter base: the model that the adapter is for; the numbers of LoRA do without.
  /// - Throws: `different` where the base lacks a module or has it in another shape, `unsupported`
  ///   for the norms of a DoRA adapter without a base.
  package init(
    _ operand: Operand, base: BaseModel?, _ settings: PruningSettings
  ) throws(PeftoolError) {
    let adapter = operand.adapter
    var notes = adapter.notes + [operand.note(onBase: base)].compactMap(\.self)
    var weights: [BaseWeight] = []
    if let base, adapter.usesDoRA {
      let names = ModuleNames(base)
      for module in adapter.modules { weights.append(try BaseWeight(of: module, in: base, names)) }
    } else if adapter.usesDoRA {
      guard settings.modules == nil else {
        throw PeftoolError(
          .unsupported, "is of DoRA, whose change has a norm only with the base: --base MODEL",
          path: operand.path)
      }
      notes.append(
        "the magnitudes of DoRA are kept, so that rows keep their lengths; --base MODEL keeps the "
          + "scaling of rows")
    }
    operands = [(operand, 1)]
    self.base = base
    self.settings = settings
    self.weights = weights
    self.notes = notes
  }

  private var adapter: LowRankAdapter { operands[0].operand.adapter }

  /// The bytes of the tensors that are read.
  package var byteCount: Int { adapter.modules.reduce(0) { $0 + $1.byteCount } }

  /// Makes the adapter, a module a thread at a time; `LowRankArithmetic` has what it throws.
  package func run(
    as dtype: DType, threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> (adapter: LowRankAdapter, results: [ModuleResult]) {
    let modules = adapter.modules
    let outcomes = try mapBlocks(count: modules.count, threads: threads) {
      (place) throws(PeftoolError) in
      let outcome = try prune(place)
      let module = try outcome.module.map { (module) throws(PeftoolError) in
        try CombinedModule(module, as: dtype)
      }
      progress(modules[place].byteCount)
      return (result: outcome.result, module: module)
    }
    let kept = try keptPlaces(of: outcomes.map(\.result))
    var result =
      settings.entries == nil
      ? try LowRankAdapter(kept.map { modules[$0] })
      : try LowRankAdapter(of: kept.compactMap { outcomes[$0].module }, from: adapter.sources)
    result.saved = adapter.saved.filter { saved in
      !saved.isBias || result.modules.contains { $0.path.isExactly(saved.path) }
    }
    result.ensuresWeightTying = adapter.ensuresWeightTying
    result.baseName = adapter.baseName
    result.positions = adapter.positions
    result.task = adapter.task
    let places = Set(kept)
    return (
      result,
      outcomes.enumerated().map { places.contains($0) ? $1.result : $1.result.gone }
    )
  }

  /// The places of the modules whose norms are large enough.
  private func keptPlaces(of results: [ModuleResult]) throws(PeftoolError) -> [Int] {
    guard let rule = settings.modules else { return Array(results.indices) }
    let norms = results.map { $0.energyBefore.squareRoot() }
    let longest = norms.max() ?? 0
    let limit = rule.limit(longest: longest)
    let kept = results.indices.filter { norms[$0] >= limit }
    guard !kept.isEmpty else {
      throw PeftoolError(
        .unsupported,
        "no module would be left: the largest norm is \(longest), expected \(limit) and more",
        path: operands[0].operand.path)
    }
    return kept
  }

  /// What became of a module, before it is known whether it stays.
  private struct Outcome: Sendable {
    let result: ModuleResult
    /// The pruned one; nil where no entries are dropped.
    let module: ComputedModule?
  }

  private func prune(_ place: Int) throws(PeftoolError) -> Outcome {
    let module = adapter.modules[place]
    let term = try module.term(weight: 1)
    let whole = Pair(a: term.a, b: term.b.scaled(by: term.scaling))
    let (pair, entries) = try pruned(term, whole)
    var bias: [Double]?
    if let own = module.bias { bias = try own.values().map { $0 * module.scaling } }
    var magnitude = try module.magnitude?.values()
    var energy: PrunedEnergy
    if let old = magnitude, !weights.isEmpty {
      let weight = weights[place]
      let projection = try BaseProjection(
        of: weight, onto: Matrix(stacking: [whole.a, pair.a]))
      do throws(PeftoolError) {
        (energy, magnitude) = try PrunedEnergy.ofDoRA(
          whole, pruned: pair, magnitude: old, base: projection)
      } catch {
        throw weight.stored.at(error)
      }
    } else {
      energy = PrunedEnergy(of: whole, pruned: pair)
    }
    energy = energy.adding(bias: bias)
    let result = ModuleResult(
      path: module.path, rankBefore: term.rank, rank: pair.rank, energyBefore: energy.before,
      energy: energy.after, lostEnergy: entries == nil ? 0 : energy.lost, entries: entries)
    guard entries != nil else { return Outcome(result: result, module: nil) }
    return Outcome(
      result: result,
      module: ComputedModule(
        module.layer, pair, bias: bias, magnitude: magnitude, result))
  }

  private func pruned(
    _ term: Term, _ whole: Pair
  ) throws(PeftoolError) -> (Pair, ModuleResult.Entries?) {
    switch settings.entries {
    case nil: return (whole, nil)
    case .factors(let density):
      let pair = whole.balanced().keepingLargest(density: density)
      return (
        pair.withoutEmptyRanks(),
        .init(
          kept: pair.filledCount, total: whole.a.elements.count + whole.b.elements.count)
      )
    case .update(let density, let rank, let isExact):
      var combination = CombinationSettings()
      combination.method = .magnitudePruneSVD
      combination.decomposition.isExact = isExact
      var term = term
      term.density = density
      let update = DenseMethods.combine([term], combination.method, combination) {
        RandomNumbers(seed: combination.seed, stream: UInt64($0))
      }
      let pair = try Truncation(
        of: update, to: rank ?? .fixed(term.rank), combination.decomposition
      ).pair
      return (
        pair, .init(kept: update.elements.count { $0 != 0 }, total: update.elements.count)
      )
    }
  }
}

extension ModuleResult {
  /// The result of a module that is dropped.
  fileprivate var gone: ModuleResult {
    ModuleResult(
      path: path, rankBefore: rankBefore, rank: 0, energyBefore: energyBefore, energy: 0,
      lostEnergy: energyBefore, entries: entries.map { .init(kept: 0, total: $0.total) })
  }
}
