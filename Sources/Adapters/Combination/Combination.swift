package import Checkpoints
package import Files
import JSON
import LinearAlgebra
package import Tensors

/// Adapters made one: by module a sum of their updates, or what a method makes of them.
///
/// A weight multiplies an adapter's whole change, W' − W; one of 0 takes the adapter out. A module
/// that an adapter lacks is an update of zero. Arithmetic is f64, of methods on whole updates f32;
/// the result has a scaling of 1. Of PEFT's `add_weighted_adapter` these differ: rsLoRA's
/// scaling is part of the factors, `lora_bias` is carried, and ranks differ by module.
///
/// Peak memory: the result, and for each thread a module's factors a few times; of methods on whole
/// updates those of a module, and what their decomposition takes; of DoRA that is cut to a rank or
/// becomes LoRA what `DoRAExtraction` takes.
package struct Combination: LowRankArithmetic, OperandArithmetic {
  /// The adapters with weights that are not 0; nil for a weight that differs by module.
  package let operands: [(operand: Operand, weight: Double?)]
  /// All adapters that were given, also those whose weight is 0.
  package let inputs: [ArithmeticInput]
  /// The tensors of all of them, and the base's.
  package let sources: [any TensorSource]
  /// For each of `operands` its place among `inputs`.
  let inputPlaces: [Int]
  /// The model that the adapters are for, where one was given.
  package let base: BaseModel?
  /// How they are combined.
  package private(set) var settings: CombinationSettings
  /// What the user should know.
  package let notes: [String]
  /// The positions that the adapters were trained with.
  private let stretching: StretchedPositions?
  /// The layers along which weights and densities may change; 0 where no module is in one.
  package let layerCount: Int
  private(set) var modules: [Module]
  private let savedSums: [SavedSum]

  /// A module of some of the adapters.
  struct Module: Sendable {
    /// One of its updates, which tells kind and shapes.
    let form: LowRankAdapter.Module
    /// For each adapter what it has for the module; nil also where its weight is 0.
    let updates: [LowRankAdapter.Module?]
    /// For each adapter the factor on its whole change of the module.
    let weights: [Double]
    /// For each adapter the share of the entries that are kept.
    let densities: [Double]
    /// The base's weight, where the result is of DoRA.
    var weight: BaseWeight?
    /// The rank that the budget gives it.
    var rank: RankChoice?

    var path: String { form.path }
    var byteCount: Int {
      updates.compactMap(\.self).flatMap(\.parts).reduce(0) { $0 + $1.stored.info.byteCount }
    }
  }

  /// Plans a combination; of the tensors nothing is read.
  ///
  /// - Parameters:
  ///   - weights: for each adapter the factor on its change of a module, 1 where no rule says it.
  ///   - densities: for each adapter the share of a module's entries that are kept, 0 to 1, of
  ///     methods that drop some.
  ///   - layerCount: the layers of the model; nil for the highest that an adapter changes.
  ///   - base: the model that the adapters are for, which a sum with DoRA in it needs.
  /// - Throws: `different` where modules have other shapes, or for methods on A and B apart other
  ///   ranks, or are not in the base or the layers, and where a filter matches none; `unsupported`
  ///   for DoRA without a base, and for settings that the method has no sense for.
  package init(
    _ operands: [Operand], weights: [Parameter], densities: [Parameter]? = nil,
    layerCount: Int? = nil, base: BaseModel? = nil, _ settings: CombinationSettings
  ) throws(PeftoolError) {
    precondition(operands.count == weights.count && !operands.isEmpty, "a weight for each")
    precondition(densities.map { $0.count == operands.count } ?? true, "a density for each")
    var seen: Set<ExactName> = []
    let paths = operands.flatMap { $0.adapter.modules.map(\.path) + $0.adapter.saved.map(\.path) }
      .filter { seen.insert(ExactName($0)).inserted }
    let positions = try LayerPositions(of: paths, layerCount: layerCount)
    var used: [Contribution] = []
    var inputs: [ArithmeticInput] = []
    var inputPlaces: [Int] = []
    for (place, operand) in operands.enumerated() {
      let contribution = Contribution(
        operand: operand, weight: weights[place], density: densities?[place] ?? 1,
        positions: positions)
      try contribution.checkFilters(paths)
      inputs.append(
        ArithmeticInput(role: "adapter", path: operand.path, weight: contribution.commonWeight))
      guard contribution.isUsed else { continue }
      used.append(contribution)
      inputPlaces.append(place)
    }
    guard let first = used.first else {
      throw PeftoolError(
        .unsupported, "every weight is 0: no adapter is left", path: operands[0].path)
    }
    guard settings.method != .slerp || used.count == 2 else {
      throw PeftoolError(
        .unsupported,
        "slerp is between two adapters with weights that are not 0, not \(used.count)",
        path: first.operand.path)
    }
    var modules = try Self.modules(of: used, settings)
    let dora = used.first { $0.operand.adapter.usesDoRA }?.operand.path
    let shared = try StretchedPositions.Shared(
      used.map { ($0.operand.path, $0.operand.adapter.positions) })
    stretching = shared.positions
    var notes = Self.notes(used.map(\.operand)) + shared.notes
    notes += used.compactMap { $0.operand.note(onBase: base) }
    notes += inputs.filter { $0.weight == 0 }.map { "\($0.path.printable): weight 0: left out" }
    if let path = dora ?? (settings.form == .dora ? first.operand.path : nil) {
      guard settings.method == .cat || settings.method == .svd else {
        throw PeftoolError(
          .unsupported, "is of DoRA, of which there are sums alone: --method cat or svd",
          path: path)
      }
      guard settings.budget == nil || base == nil else {
        throw PeftoolError(
          .unsupported,
          "is of DoRA, and a budget weighs the singular values of B*A: without --base it spends the "
            + "budget on these", path: path)
      }
      if let base {
        try Self.findWeights(of: &modules, in: base)
      } else if dora != nil, settings.form != .lora, used.count == 1, first.commonWeight == 1 {
        notes.append(
          "DoRA without its base: B·A is cut by itself and m kept; --base MODEL gives the nearest "
            + "of that rank")
      } else {
        throw PeftoolError(
          .unsupported,
          dora == nil
            ? "becomes DoRA, whose magnitudes are those of the base's rows: --base MODEL"
            : "is of DoRA, whose magnitudes have a sum only with the base: --base MODEL",
          path: path)
      }
    }
    savedSums = try SavedSum.all(of: used, base: base)
    self.operands = used.map { ($0.operand, $0.commonWeight) }
    self.inputs = inputs
    self.inputPlaces = inputPlaces
    sources =
      operands.flatMap(\.adapter.sources) + [base?.checkpoint.source].compactMap(\.self)
    self.base = base
    self.settings = settings
    self.layerCount = positions.layerCount
    self.modules = modules
    let known = Set(used.flatMap(\.operand.adapter.modules).map { ExactName($0.path) })
    let left = known.count - modules.count
    self.notes =
      notes + (left > 0 ? ["left out, as every weight is 0 there: \(left) of the modules"] : [])
  }

  /// The modules in which an adapter has a weight, in the order in which they come.
  private static func modules(
    of contributions: [Contribution], _ settings: CombinationSettings
  ) throws(PeftoolError) -> [Module] {
    var modules: [Module] = []
    var known: Set<ExactName> = []
    let operands = contributions.map(\.operand)
    for (contribution, operand) in zip(contributions, operands) {
      for module in operand.adapter.modules
      where contribution.weight(in: module) != 0 && known.insert(ExactName(module.path)).inserted {
        let weights = contributions.map { $0.weight(in: module) }
        let updates = zip(operands, weights).map { $1 != 0 ? $0[module.path] : nil }
        var densities = [Double](repeating: 1, count: operands.count)
        for place in updates.indices where updates[place] != nil {
          densities[place] = try contributions[place].density(in: module, settings)
        }
        for (other, update) in zip(operands, updates) {
          guard let update else { continue }
          guard update.fits(module) else {
            throw PeftoolError(
              .different,
              "\(module.path.printable) is \(update.shapesText), in \(operand.path.printable) "
                + module.shapesText, path: other.path)
          }
          guard !settings.method.isApart || update.rank == module.rank else {
            throw PeftoolError(
              .different,
              "\(module.path.printable) has rank \(update.rank), in \(operand.path.printable) "
                + "\(module.rank): \(settings.method.rawValue) needs equal ones; cat and svd do not",
              path: other.path)
          }
        }
        modules.append(
          Module(form: module, updates: updates, weights: weights, densities: densities))
      }
    }
    return modules
  }

  private static func findWeights(
    of modules: inout [Module], in base: BaseModel
  ) throws(PeftoolError) {
    let names = ModuleNames(base)
    for place in modules.indices {
      modules[place].weight = try BaseWeight(of: modules[place].form, in: base, names)
    }
  }

  private static func notes(_ operands: [Operand]) -> [String] {
    var bases: [String] = []
    for name in operands.compactMap(\.adapter.baseName) where !bases.contains(name) {
      bases.append(name)
    }
    let differing =
      bases.count < 2
      ? []
      : ["made for different bases: \(bases.map(\.printable).joined(separator: ", "))"]
    return operands.flatMap(\.adapter.notes) + differing
  }

  /// The bytes of the tensors that are read.
  package var byteCount: Int { modules.reduce(0) { $0 + $1.byteCount } }

  /// Makes the adapter, a module a thread at a time; `LowRankArithmetic` has what it throws.
  package func run(
    as dtype: DType, threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> (adapter: LowRankAdapter, results: [ModuleResult]) {
    if let budget = settings.budget {
      return try spending(budget, threads: threads).run(
        as: dtype, threads: threads, progress: progress)
    }
    let combinedModules = try mapBlocks(count: modules.count, threads: threads) {
      (place) throws(PeftoolError) in
      let module = try CombinedModule(combine(place), as: dtype)
      progress(modules[place].byteCount)
      return module
    }
    var adapter = try LowRankAdapter(
      of: combinedModules, from: operands.flatMap(\.operand.adapter.sources))
    var tensors = ComputedTensors(of: sources)
    adapter.saved = savedSums.map { $0.saved(in: &tensors, as: dtype) }
    adapter.ensuresWeightTying = operands.contains { $0.operand.adapter.ensuresWeightTying }
    adapter.baseName = operands[0].operand.adapter.baseName
    adapter.positions = stretching
    adapter.task = operands[0].operand.adapter.task
    return (adapter, combinedModules.map(\.result))
  }

  /// The same with a rank for each module; of singular values no more than a module's are held.
  private func spending(
    _ budget: RankBudget, threads: Int
  ) throws(PeftoolError) -> Combination {
    precondition(settings.method == .svd, "the nearest of a rank")
    let spectra = try mapBlocks(count: modules.count, threads: threads) {
      (place) throws(PeftoolError) in
      let (pair, form) = (Concatenation.combine(try terms(of: place)), modules[place].form)
      let values = try LowRankSVD.of(pair.b, pair.a).singularValues
      return RankBudget.Spectrum(
        energies: values.map { $0 * $0 }, fullRank: values.count,
        cost: form.inputCount + form.outputCount)
    }
    var ranked = self
    ranked.settings.budget = nil
    do throws(PeftoolError) {
      for (place, rank) in try budget.ranks(of: spectra).enumerated() {
        ranked.modules[place].rank = .fixed(rank)
      }
    } catch {
      throw error.at(path: operands[0].operand.path)
    }
    return ranked
  }

  private func combine(_ place: Int) throws(PeftoolError) -> ComputedModule {
    var combined = try combination(of: place)
    let scalings = modules[place].updates.compactMap { $0?.scaling }
    // One of 0 or below has no root to take off the factors.
    if settings.keepsScaling, scalings.count == 1, scalings[0] > 0 {
      combined.scaling = scalings[0]
    }
    return combined
  }

  /// What the adapters do to a module.
  private func terms(of place: Int) throws(PeftoolError) -> [Term] {
    let module = modules[place]
    var terms: [Term] = []
    for (place, update) in module.updates.enumerated() {
      let weight = module.weights[place]
      if let update {
        terms.append(try update.term(weight: weight, density: module.densities[place]))
      } else if settings.method == .slerp {
        terms.append(
          Term(
            a: Matrix(rows: 0, columns: module.form.inputCount),
            b: Matrix(rows: module.form.outputCount, columns: 0), scaling: 1, weight: weight))
      }
    }
    return terms
  }

  private func combination(of place: Int) throws(PeftoolError) -> ComputedModule {
    let module = modules[place]
    let terms = try terms(of: place)
    let rankBefore = terms.reduce(0) { $0 + $1.rank }
    let bias = BiasMethods.combine(terms, settings.method, settings)
    var magnitudes: [[Double]?] = []
    for update in module.updates {
      if let update { magnitudes.append(try update.magnitude?.values()) }
    }
    guard let weight = module.weight else {
      return try ComputedModule(
        module.form.layer, combination(of: terms, place), rankBefore: rankBefore,
        bias: bias, magnitude: magnitudes.first ?? nil)
    }
    do throws(PeftoolError) {
      return try sum(
        of: terms, magnitudes, on: weight, form: module.form, rankBefore: rankBefore,
        bias: bias)
    } catch {
      throw weight.stored.at(error)
    }
  }

  /// The sum of updates where one is of DoRA, or the result is.
  private func sum(
    of terms: [Term], _ magnitudes: [[Double]?], on weight: BaseWeight,
    form: LowRankAdapter.Module, rankBefore: Int, bias: [Double]?
  ) throws(PeftoolError) -> ComputedModule {
    let projection = try BaseProjection(of: weight, onto: Matrix(stacking: terms.map(\.a)))
    let sum = try DoRASum.combine(terms, magnitudes: magnitudes, base: projection)
    let isLoRA = settings.form == .lora
    let isRowsZero = Cancellation.leavesNothing(of: terms, inFactors: sum.factors)
    let isPairZero = try Cancellation.leavesNothing(of: terms, in: sum.pair)
    let isZero = isRowsZero && isPairZero
    guard isLoRA || settings.method == .svd || settings.rank != nil else {
      return ComputedModule(
        form.layer, isZero ? Truncation(keepingZero: sum.pair) : Truncation(keeping: sum.pair),
        rankBefore: rankBefore, bias: bias, magnitude: sum.magnitude)
    }
    guard !isZero else {
      return ComputedModule(
        form.layer,
        Truncation(keepingZero: .nothing(rows: sum.pair.b.rows, columns: sum.pair.a.columns)),
        rankBefore: rankBefore, bias: bias,
        magnitude: isLoRA ? nil : projection.squaredNorms.map { $0.squareRoot() })
    }
    // W' − W = diag(c − 1)·W + diag(c)·B·A.
    let base = try weight.values()
    var change = product(
      Matrix<Float>(sum.pair.b.scaled(rows: sum.factors)), Matrix<Float>(sum.pair.a))
    change.add(base, scaling: sum.factors.map { Float($0 - 1) })
    let rank = settings.rank ?? .fixed(terms.map(\.rank).max() ?? 1)
    guard !isLoRA else {
      return try ComputedModule(
        form.layer, Truncation(of: change, to: rank, settings.decomposition),
        rankBefore: rankBefore, bias: bias)
    }
    let found = try DoRAExtraction(
      change: change, of: base, to: rank, startingWith: sum.factors, settings.decomposition)
    return ComputedModule(
      form.layer, found.truncation(of: change), rankBefore: rankBefore, bias: bias,
      magnitude: found.magnitude(of: base))
  }

  /// What a method makes of the updates of a module.
  private func combination(of terms: [Term], _ place: Int) throws(PeftoolError) -> Truncation {
    let method = settings.method
    let numbers = { (draw: Int) in
      RandomNumbers(
        seed: settings.seed, stream: UInt64(place) << 32 | UInt64(draw))
    }
    let largest = RankChoice.fixed(terms.map(\.rank).max() ?? 1)
    if method.isDense {
      let sum = DenseMethods.combine(terms, method, settings, numbers)
      guard !Cancellation.leavesNothing(of: terms, in: sum) else {
        return Truncation(keepingZero: .nothing(rows: sum.rows, columns: sum.columns))
      }
      return try Truncation(of: sum, to: settings.rank ?? largest, settings.decomposition)
    }
    let pair: Pair =
      switch method {
      case .slerp: Slerp.combine(terms)
      case .knots: try Knots.combine(terms, settings)
      case .tsv: try TaskSingularVectors.combine(terms)
      case _ where method.isApart: ApartMethods.combine(terms, method, settings, numbers)
      default: Concatenation.combine(terms)
      }
    let isZero = try Cancellation.leavesNothing(of: terms, in: pair)
    let rank = modules[place].rank ?? settings.rank ?? (method == .svd ? largest : nil)
    guard pair.rank > 0, !isZero || rank == nil else {
      return Truncation(keepingZero: .nothing(rows: pair.b.rows, columns: pair.a.columns))
    }
    guard !isZero else { return Truncation(keepingZero: pair) }
    guard let rank else { return Truncation(keeping: pair) }
    return try Truncation(of: pair, to: rank)
  }
}

extension LowRankAdapter.Module {
  /// Whether another update is of a layer of the same kind and shape.
  func fits(_ other: LowRankAdapter.Module) -> Bool {
    kind == other.kind && a.shape.dropFirst() == other.a.shape.dropFirst()
      && b.shape[0] == other.b.shape[0]
  }
}
