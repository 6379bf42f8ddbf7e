package import Checkpoints
package import Files
import JSON
import LinearAlgebra
package import Patterns
package import Tensors

/// An adapter out of a model that was trained as a whole: by module the nearest LoRA or DoRA update
/// of a rank to W' − W.
///
/// Embeddings and convolutions have pairs, too. What cannot be decomposed, such as norms, is saved
/// whole where it has changed (`modules_to_save`); biases are `lora_bias` where every module with a
/// pair has one, and else saved whole (`bias: "lora_only"`). What has not changed is left out.
/// Differences are taken in f64 and rounded once to f32; factors have a scaling of 1.
///
/// Peak memory: the result; for each thread the change of a module's weight in f32, of DoRA the
/// weight, too, and what their decomposition takes; weights of more than 33 million elements are taken
/// one at a time. With a budget the models are passed over twice.
package struct Extraction: LowRankArithmetic {
  /// How it is done.
  package struct Options: Sendable {
    /// The rank of a module.
    package var rank = RankChoice.fixed(16)
    /// What the pairs of all modules may take, of LoRA: each gets a rank of its own, whatever `rank`
    /// says.
    package var budget: RankBudget?
    /// Whether the adapter is of DoRA.
    package var isDoRA = false
    /// Whether changes are to be sparse, which linear layers alone have.
    package var isSparse = false
    /// How changes are decomposed.
    package var decomposition = Decomposition()
    /// What stays out, by globs on the modules' paths.
    package var excluded: [Glob] = []
    /// What is saved whole, likewise.
    package var saved: [Glob] = []

    package init() {}
  }

  let base: BaseModel
  private let tuned: BaseModel
  private let options: Options
  let plan: ExtractionPlan

  /// Pairs the models; of their tensors nothing is read.
  ///
  /// - Throws: as `ExtractionPlan`.
  package init(base: BaseModel, tuned: BaseModel, _ options: Options) throws(PeftoolError) {
    self.base = base
    self.tuned = tuned
    self.options = options
    plan = try ExtractionPlan(base: base, tuned: tuned, options)
  }

  /// The tuned model's positions, where they are stretched and not the base's.
  var positions: StretchedPositions? {
    StretchedPositions(tuned.config)?.missing(in: base.config)
  }

  /// The two models.
  package var inputs: [ArithmeticInput] {
    [
      ArithmeticInput(role: "base", path: base.checkpoint.path, weight: -1),
      ArithmeticInput(role: "tuned", path: tuned.checkpoint.path, weight: 1),
    ]
  }

  /// The tensors of both.
  package var sources: [any TensorSource] { [base.checkpoint.source, tuned.checkpoint.source] }

  /// The bytes of the tuned model's files of tensors.
  package var inputByteCount: Int {
    tuned.checkpoint.source.files.reduce(0) { $0 + $1.byteCount }
  }

  /// What the user should know before anything is read.
  package var notes: [String] {
    var notes: [String] = []
    if let module = plan.modules.first(where: { $0.base.stored.dtype != $0.tuned.stored.dtype }) {
      notes.append(
        "\(module.path.printable) is \(module.base.stored.dtype.rawValue) in one model and "
          + "\(module.tuned.stored.dtype.rawValue) in the other: what rounding has changed counts, too"
      )
    }
    if let positions {
      notes.append(
        "positions of the tuned model are stretched, which config.json tells beside the adapter: "
          + positions.scaling.text)
    }
    for (what, modules) in [
      ("left out by --exclude", plan.excluded),
      ("of --save and --exclude both, and so not saved", plan.excludedOfSaved),
    ] {
      guard let first = modules.first else { continue }
      notes.append(
        "\(what): \(first.printable)"
          + (modules.count > 1 ? " and \(modules.count - 1) more" : ""))
    }
    return notes
  }

  /// None: no adapter is read.
  package var adapterDTypes: Set<DType> { [] }

  /// The bytes of the weights that get pairs, of both models; twice, where singular values are looked
  /// at before.
  package var byteCount: Int {
    plan.modules.reduce(0) { $0 + $1.byteCount } * (options.budget == nil ? 1 : 2)
  }

  /// Decomposes the changes of all modules.
  ///
  /// - Parameter progress: is told of bytes read, from any thread.
  /// - Throws: `different` where nothing has changed that can be decomposed; `io`, `damaged` where a
  ///   value is not finite, `unsupported` where a decomposition does not converge.
  package func run(
    as dtype: DType, threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> (adapter: LowRankAdapter, results: [ModuleResult]) {
    let ranks =
      try options.budget.map { (budget) throws(PeftoolError) in
        try spending(budget, threads: threads, progress: progress)
      } ?? plan.modules.map { _ in options.rank }
    let decomposed = try map(Array(plan.modules.indices), threads: threads) {
      (place) throws(PeftoolError) in
      let module = try decompose(plan.modules[place], to: ranks[place]).map {
        (module) throws(PeftoolError) in
        try CombinedModule(module, as: dtype)
      }
      progress(plan.modules[place].byteCount)
      return module
    }
    return try adapter(of: decomposed)
  }

  /// What a function makes of modules: the largest first, so that no thread has one left at the end;
  /// those that are very large, as embeddings are, one at a time.
  private func map<Result: Sendable>(
    _ places: [Int], threads: Int, _ body: (_ place: Int) throws(PeftoolError) -> Result
  ) throws(PeftoolError) -> [Result] {
    let order = places.indices.sorted {
      (-plan.modules[places[$0]].elementCount, $0) < (-plan.modules[places[$1]].elementCount, $1)
    }
    let largeCount = order.prefix {
      plan.modules[places[$0]].elementCount > Self.largeElementCount
    }.count
    var results: [Int: Result] = [:]
    for (turns, threads) in [
      (Array(order.prefix(largeCount)), 1), (Array(order.dropFirst(largeCount)), threads),
    ] {
      let found = try mapBlocks(count: turns.count, threads: threads) {
        (turn) throws(PeftoolError) in try body(places[turns[turn]])
      }
      for (turn, result) in zip(turns, found) { results[turn] = result }
    }
    return places.indices.compactMap { results[$0] }
  }

  /// The rank of each module by a budget for those that have changed.
  ///
  /// Of large changes only so many singular values are looked for as the choice may need: where it
  /// takes more of a module than are known, twice as many. Of them no more than a module's are held.
  private func spending(
    _ budget: RankBudget, threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> [RankChoice] {
    let mean = min(budget.meanRank(costs: plan.modules.map(\.rankCost)), 1e6)
    var limits = plan.modules.map { min($0.fullRank, Self.firstLimitOfMean * max(1, Int(mean))) }
    var spectra = try map(Array(plan.modules.indices), threads: threads) {
      (place) throws(PeftoolError) in
      let spectrum = try spectrum(of: plan.modules[place], upTo: limits[place])
      progress(plan.modules[place].byteCount)
      return spectrum
    }
    let places = spectra.indices.filter { spectra[$0] != nil }
    while true {
      let ranks: [Int]
      do throws(PeftoolError) {
        ranks = try budget.ranks(of: spectra.compactMap(\.self))
      } catch {
        throw error.at(path: tuned.checkpoint.path)
      }
      let short = zip(places, ranks).filter { place, rank in
        spectra[place].map { rank > max(1, $0.energies.count) } ?? false
      }.map(\.0)
      guard !short.isEmpty else {
        var choices = plan.modules.map { _ in RankChoice.fixed(1) }
        for (place, rank) in zip(places, ranks) { choices[place] = .fixed(rank) }
        return choices
      }
      for place in short { limits[place] = min(plan.modules[place].fullRank, 2 * limits[place]) }
      let known = limits
      let found = try map(short, threads: threads) { (place) throws(PeftoolError) in
        try spectrum(of: plan.modules[place], upTo: known[place])
      }
      for (place, spectrum) in zip(short, found) { spectra[place] = spectrum }
    }
  }

  /// Singular values are first looked for up to so many times the mean rank of a budget.
  private static let firstLimitOfMean = 2

  /// The largest singular values of a change, squared; nil where nothing has changed.
  private func spectrum(
    of module: ExtractionPlan.Module, upTo limit: Int
  ) throws(PeftoolError) -> RankBudget.Spectrum? {
    let isBiasChanged = try module.biasChange()?.contains { $0 != 0 } ?? false
    let change = try module.tuned.storedChange(from: module.base).change
    guard change.squaredNorm > 0 || isBiasChanged else { return nil }
    let energies = try options.decomposition.largestEnergies(limit, of: change)
    return RankBudget.Spectrum(
      energies: energies, fullRank: module.fullRank, cost: module.rankCost)
  }

  /// Weights of more elements are held one at a time.
  private static let largeElementCount = 1 << 25

  /// The update of a module; nil where neither weight nor bias has changed.
  private func decompose(
    _ module: ExtractionPlan.Module, to rank: RankChoice
  ) throws(PeftoolError) -> ComputedModule? {
    let isChanged = try !module.tuned.stored.isSame(as: module.base.stored)
    guard options.isDoRA else {
      let bias = try module.biasChange()
      let isBiasChanged = bias?.contains { $0 != 0 } ?? false
      guard isChanged || isBiasChanged else { return nil }
      let (change, weightNorm) = try module.tuned.storedChange(from: module.base)
      let cut = try Truncation(of: change, to: rank, options.decomposition)
      // The same numbers in another dtype are no change.
      guard cut.wholeEnergy > 0 || isBiasChanged else { return nil }
      return ComputedModule(
        module.layer, module.base.isTransposed ? cut.transposed() : cut,
        rankBefore: module.fullRank, bias: bias, weightNorm: weightNorm)
    }
    guard isChanged else { return nil }
    let (change, weightNorm) = try module.tuned.change(from: module.base)
    guard change.squaredNorm > 0 else { return nil }
    let weight = try module.base.values()
    let update = try DoRAExtraction(
      change: change, of: weight, to: rank, options.decomposition)
    return ComputedModule(
      module.layer, update.truncation(of: change), rankBefore: module.fullRank, bias: nil,
      magnitude: update.magnitude(of: weight), weightNorm: weightNorm)
  }

  /// Puts together what has changed.
  private func adapter(
    of decomposed: [CombinedModule?]
  ) throws(PeftoolError) -> (adapter: LowRankAdapter, results: [ModuleResult]) {
    var modules = decomposed.compactMap(\.self)
    var saved = try savedWhole(beside: decomposed.map { $0 != nil })
    let wholeCount = Set(saved.map { ExactName($0.path) }).count
    // PEFT has a bias at every pair or at none, has none at embeddings, and merges none where the
    // layer has none.
    let changed = zip(plan.modules, decomposed).filter { $1 != nil }.map(\.0)
    if options.isDoRA || changed.contains(where: { $0.bias == nil }) {
      modules = modules.map(\.withoutBias)
      for module in changed {
        guard let bias = module.bias, try !bias.tuned.isSame(as: bias.base) else { continue }
        saved.append(bias.tuned.saved(module.path, "bias", isBias: true))
      }
    }
    guard !modules.isEmpty else {
      throw nothing(changed: saved)
    }
    let results = modules.map(\.result)
    let isTied = Set(plan.modules.filter(\.isTied).map { ExactName($0.path) })
    let ends = modules.filter { isTied.contains(ExactName($0.path)) }
    modules += ends.map { $0.turnedAround(path: outputPath) }
    var adapter = try LowRankAdapter(of: modules, from: sources)
    adapter.saved = saved
    let isTiedWhole = plan.wholes.contains { whole in
      whole.isTied && saved.contains { $0.path.isExactly(whole.path) }
    }
    adapter.ensuresWeightTying = !ends.isEmpty || isTiedWhole
    adapter.baseName = base.checkpoint.path
    adapter.positions = positions
    adapter.task = base.task
    let unchangedCount = decomposed.count { $0 == nil }
    if unchangedCount > 0 { adapter.notes.append("unchanged modules left out: \(unchangedCount)") }
    if wholeCount > 0 { adapter.notes.append("modules saved whole: \(wholeCount)") }
    if let end = ends.first {
      adapter.notes.append(
        "\(end.path.printable) is both ends of the model: 'merge' takes its change, 'resize', and "
          + "'generate' and 'evaluate' beside the base, do not (--exclude leaves it out)")
    }
    return (adapter, results)
  }

  /// Why there is no adapter.
  func nothing(changed saved: [LowRankAdapter.Saved]) -> PeftoolError {
    let other = base.checkpoint.path.printable
    var reason = "is the same as \(other): there is no change to extract"
    if let first = saved.first {
      reason =
        "differs from \(other) in \(first.path.printable).\(first.parameter.printable) and the like "
        + "alone, which have no low-rank update, and PEFT has no adapter without one"
    } else if !plan.excluded.isEmpty {
      reason = "differs from \(other) at most in what --exclude leaves out"
    }
    return PeftoolError(.different, reason, path: tuned.checkpoint.path)
  }

  /// What is saved whole: modules without pairs of which something has changed.
  func savedWhole(beside hasChange: [Bool]) throws(PeftoolError) -> [LowRankAdapter.Saved] {
    var saved: [LowRankAdapter.Saved] = []
    for whole in plan.wholes {
      var isChanged = false
      for parameter in whole.parameters where !isChanged {
        isChanged = try !parameter.tuned.isSame(as: parameter.base)
      }
      guard isChanged else { continue }
      for path in [whole.path] + (whole.isTied ? [outputPath] : []) {
        for (name, _, tuned) in whole.parameters {
          guard tuned.dtype.isComputable else {
            throw tuned.at(
              PeftoolError(
                .unsupported,
                "is \(tuned.dtype.rawValue) and not what the base has: no adapter holds it"))
          }
          saved.append(tuned.saved(path, name, isBias: false))
        }
      }
    }
    // Of a module without a pair a bias alone may have changed.
    for (module, hasChange) in zip(plan.modules, hasChange) where !hasChange {
      guard let bias = module.bias, try !bias.tuned.isSame(as: bias.base) else { continue }
      saved.append(module.tuned.stored.saved(module.path, "weight", isBias: false))
      saved.append(bias.tuned.saved(module.path, "bias", isBias: false))
    }
    return saved
  }

  /// The output embedding's path, where it is the input's.
  private var outputPath: String {
    base.untiedOutputName.moduleOfWeight ?? base.untiedOutputName
  }
}

extension ExtractionPlan.Module {
  /// The rank that its change may have.
  var fullRank: Int { min(base.outputCount, base.inputCount) }

  /// The parameters that a rank takes.
  fileprivate var rankCost: Int { base.outputCount + base.inputCount }

  /// What the bias has changed by; nil where there is none.
  fileprivate func biasChange() throws(PeftoolError) -> [Double]? {
    guard let bias else { return nil }
    return zip(try bias.tuned.values(Double.self), try bias.base.values(Double.self)).map {
      $0 - $1
    }
  }
}

extension StoredTensor {
  fileprivate func saved(
    _ path: String, _ parameter: String, isBias: Bool
  ) -> LowRankAdapter.Saved {
    LowRankAdapter.Saved(
      path: path, parameter: parameter, tensor: AdapterTensor(info, in: source), isBias: isBias)
  }
}
