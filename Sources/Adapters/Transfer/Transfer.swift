package import Checkpoints
package import Files
import JSON
import LinearAlgebra
package import Tensors

/// An adapter moved from the model that it was made for to another.
///
/// By the first three ways, between models of the same shapes:
///
/// W_s and W_t are a layer's weights in the two, U and V their leading singular vectors,
/// P = U·Uᵀ on the side of the outputs, V·Vᵀ on that of the inputs.
/// - LoRA-X (Farhadzadeh and others 2025): B' = P_t·B, A' = A·P_t, which keeps what lies in the
///   subspaces of W_t.
/// - ProLoRA (2025): B' = P_t·P_s·B + (1 − P_t)·(1 − P_s)·B, A' likewise: what was inside of the old
///   subspace goes into the new one, and what was outside stays outside.
/// - Cross-LoRA (2025), for equal shapes: B' = U_t·D·U_sᵀ·B, A' = A·V_s·D·V_tᵀ, where D gives each pair
///   of vectors the sign that brings it nearer to its counterpart: signs mean nothing by themselves.
///
/// - Procrustes, between models of the Llama family of any depth and width of the hidden stream:
///   `StreamMap` finds how the one stream becomes the other, `CarriedModule` what becomes of the
///   factors, `LayerMap` which layer stands for which.
///
/// The first two do not depend on signs and order of the vectors, and are for models that are near to
/// each other; the third is right where W_t is W_s in turned coordinates, O·W_s·Qᵀ, as long as the
/// turn is less than a right angle for each pair, and singular values differ.
///
/// Arithmetic on factors is f64, weights are f32. A layer below the threshold is an error.
/// Peak memory: the result, and for each thread one layer's two weights in f32 and what the
/// decomposition of one takes; weights of more than 33 million elements are taken one at a time.
package struct Transfer: LowRankArithmetic, OperandArithmetic {
  /// How factors get from one model to the other.
  package enum Method: String, CaseIterable, Sendable {
    /// Inside of the old subspaces to inside of the new, outside to outside.
    case proLoRA = "prolora"
    /// Onto the subspaces of the new weight.
    case loraX = "lora-x"
    /// From singular pair to singular pair.
    case crossLoRA = "cross-lora"
    /// From hidden stream to hidden stream, by the embeddings of shared tokens.
    case procrustes
  }

  /// A token that both models have, by its rows in their embeddings.
  package struct SharedToken: Equatable, Sendable {
    /// The row in the old model's.
    package let source: Int
    /// The row in the new model's.
    package let target: Int

    package init(source: Int, target: Int) {
      self.source = source
      self.target = target
    }
  }

  /// What is done.
  package struct Options: Sendable {
    /// How factors are carried.
    package var method = Method.proLoRA
    /// The singular vectors that the subspaces have on each side, or all where there are fewer; 320
    /// as Cross-LoRA has it.
    package var subspace = 320
    /// What each layer's overlap and kept energy have to be at least, 0 to 1.
    package var threshold = 0.5
    /// The tokens by which `procrustes` finds the stream; nil for all by their numbers, where both
    /// models have as many.
    package var sharedTokens: [SharedToken]?
    /// How weights are decomposed.
    package var decomposition = Decomposition()

    package init() {}
  }

  /// The adapter, with a weight of 1.
  package let operands: [(operand: Operand, weight: Double?)]
  private let source: BaseModel
  private let target: BaseModel
  private let options: Options
  private let carried: [CarriedModule]
  /// What is known of the hidden streams, where it is by these that factors are carried.
  private let streams: StreamPlan?
  /// The new model's, stretched as much as the adapter has them.
  private let positions: StretchedPositions?

  /// The model that it was made for.
  package var base: BaseModel? { source }

  /// Plans a transfer; of the tensors nothing is read.
  ///
  /// - Throws: `different` where a model lacks a module or has it in another shape; `unsupported` for
  ///   what has no place in the formulas: DoRA, embeddings, convolutions, biases, saved modules; with
  ///   `procrustes` models of other families, and heads or inner widths that differ.
  package init(
    _ operand: Operand, from source: BaseModel, to target: BaseModel, _ options: Options
  ) throws(PeftoolError) {
    operands = [(operand, 1)]
    self.source = source
    self.target = target
    self.options = options
    let adapter = operand.adapter
    func refused(_ what: String) -> PeftoolError {
      PeftoolError(
        .unsupported, "\(what), and transfer takes LoRA of linear layers alone",
        path: operand.path)
    }
    if adapter.usesDoRA { throw refused("is of DoRA") }
    if let saved = adapter.saved.first {
      throw refused("saves \(saved.path.printable).\(saved.parameter.printable) whole")
    }
    for module in adapter.modules {
      guard module.kind == .linear else {
        throw refused("\(module.path.printable) is of kind \(module.kind.rawValue)")
      }
      if module.bias != nil { throw refused("\(module.path.printable) has a bias of lora_B") }
    }
    positions = try adapter.positions.flatMap { (positions) throws(PeftoolError) in
      do throws(PeftoolError) {
        return try positions.moved(to: target.config ?? .object([]))
      } catch {
        throw PeftoolError(
          error.kind,
          "\(error.reason), and the adapter was trained with positions stretched "
            + "(\(positions.scaling.text))", path: target.checkpoint.path)
      }
    }
    guard options.method == .procrustes else {
      carried = try Self.sameShapes(adapter, source, target)
      streams = nil
      return
    }
    let plan = try StreamPlan(adapter, from: source, to: target, options.sharedTokens)
    carried = plan.modules
    streams = plan
  }

  private static func sameShapes(
    _ adapter: LowRankAdapter, _ source: BaseModel, _ target: BaseModel
  ) throws(PeftoolError) -> [CarriedModule] {
    let names = (source: ModuleNames(source), target: ModuleNames(target))
    var carried: [CarriedModule] = []
    for module in adapter.modules {
      let own = try BaseWeight(of: module, in: source, names.source)
      do throws(PeftoolError) {
        carried.append(
          CarriedModule(
            module: module, path: module.path, source: own,
            target: try BaseWeight(of: module, in: target, names.target)))
      } catch {
        // Without a tensor there is no such module.
        guard error.kind == .different, error.tensor != nil else { throw error }
        throw PeftoolError(
          .different,
          "\(error.reason); but for --method procrustes transfer is between models of the same shapes",
          tensor: error.tensor, path: error.path)
      }
    }
    return carried
  }

  /// The adapter and the two models.
  package var inputs: [ArithmeticInput] {
    [
      ArithmeticInput(role: "adapter", path: operands[0].operand.path, weight: 1),
      ArithmeticInput(role: "from", path: source.checkpoint.path, weight: 1),
      ArithmeticInput(role: "to", path: target.checkpoint.path, weight: 1),
    ]
  }

  /// The tensors of all three.
  package var sources: [any TensorSource] {
    adapter.sources + [source.checkpoint.source, target.checkpoint.source]
  }

  /// What the user should know before anything is read.
  package var notes: [String] {
    adapter.notes + [operands[0].operand.note(onBase: source)].compactMap(\.self)
      + (streams?.notes ?? [])
      + (positions.map {
        [
          "positions are the new model's, stretched as the adapter was trained: "
            + $0.scaling.text
        ]
      } ?? [])
  }

  /// The bytes of the weights and factors that are read.
  package var byteCount: Int {
    carried.reduce(0) { $0 + $1.byteCount }
  }

  private var adapter: LowRankAdapter { operands[0].operand.adapter }

  /// Weights of more elements are decomposed one at a time.
  private static let largeElementCount = 1 << 25

  /// Carries the factors, a layer a thread at a time; `LowRankArithmetic` has what it throws, and
  /// `different` for embeddings and layers below the threshold.
  package func run(
    as dtype: DType, threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> (adapter: LowRankAdapter, results: [ModuleResult]) {
    let mapped = try streams.map { (streams) throws(PeftoolError) in
      let map = try StreamMap(
        from: streams.embeddings.source, to: streams.embeddings.target, tokens: streams.tokens,
        threads: threads)
      try refuseStranger(map)
      return (map: map, ends: streams.ends)
    }
    let largest = carried.map { $0.source.stored.info.elementCount }.max() ?? 0
    let modules = try mapBlocks(
      count: carried.count, threads: largest > Self.largeElementCount ? 1 : threads
    ) { (place) throws(PeftoolError) in
      let module = try CombinedModule(
        transferred(carried[place], by: mapped.map { ($0.map, $0.ends[place]) }), as: dtype)
      progress(carried[place].byteCount)
      return module
    }
    try refuseLost(modules.map(\.result))
    var result = try LowRankAdapter(of: modules, from: adapter.sources)
    if let map = mapped?.map {
      result.notes.append(
        "the stream of \(map.r.rows) became one of \(map.r.columns) by \(map.tokenCount) shared "
          + "tokens, whose embeddings agree to a cosine of \(Self.text(map.alignment)), and are "
          + "\(Self.text(map.scale)) times as long")
    }
    result.baseName = target.checkpoint.path
    result.positions = positions
    result.task = adapter.task
    return (result, modules.map(\.result))
  }

  /// - Parameter stream: how the one stream becomes the other, and where the module meets them; nil
  ///   for the ways between subspaces.
  private func transferred(
    _ module: CarriedModule, by stream: (map: StreamMap, ends: StreamEnds)?
  ) throws(PeftoolError) -> ComputedModule {
    let term = try module.module.term(weight: 1)
    let before = Pair(a: term.a, b: term.b.scaled(by: term.scaling))
    let pair: Pair
    let energy: (before: Double, after: Double)
    let overlap: ModuleResult.Overlap
    if let (map, ends) = stream {
      (pair, energy, overlap) = try module.carried(before, by: map, ends, options)
    } else {
      (pair, overlap) = try projected(before, module)
      energy = (before.energy, pair.energy)
    }
    var result = ModuleResult(
      path: module.path, rankBefore: term.rank, rank: term.rank, energyBefore: energy.before,
      energy: energy.after, lostEnergy: max(0, energy.before - energy.after), entries: nil)
    result.overlap = overlap
    var computed = ComputedModule(module.layer, pair, bias: nil, result)
    if term.scaling > 0 { computed.scaling = term.scaling }
    return computed
  }

  /// The ways between weights of the same shape.
  private func projected(
    _ before: Pair, _ module: CarriedModule
  ) throws(PeftoolError) -> (Pair, ModuleResult.Overlap) {
    let spaces = try (
      source: Subspaces(of: module.source, options), target: Subspaces(of: module.target, options)
    )
    var overlap = spaces.target.overlap(with: spaces.source)
    switch options.method {
    case .loraX: return (spaces.target.inside(before), overlap)
    case .crossLoRA:
      let signs = spaces.target.signs(nearTo: spaces.source)
      overlap.alignment = signs.alignment
      let pair = spaces.target.image(of: before, from: spaces.source, signs: signs.values)
      return (pair, overlap)
    case .proLoRA: return (spaces.target.counterpart(of: before, in: spaces.source), overlap)
    case .procrustes: preconditionFailure("procrustes is not by subspaces")
    }
  }

  /// - Throws: `different` where the embeddings of shared tokens agree too little.
  private func refuseStranger(_ map: StreamMap) throws(PeftoolError) {
    guard map.alignment < options.threshold else { return }
    throw PeftoolError(
      .different,
      "the embeddings of \(map.tokenCount) shared tokens agree to a cosine of "
        + "\(Self.text(map.alignment)), below the threshold \(options.threshold): they are strangers; "
        + Self.wayOut, path: operands[0].operand.path)
  }

  /// - Throws: `different` with the layer of which the least survives, where that is too little.
  private func refuseLost(_ results: [ModuleResult]) throws(PeftoolError) {
    let lost = results.filter { $0.survival < options.threshold }
    guard let worst = lost.min(by: { $0.survival < $1.survival }), let overlap = worst.overlap
    else {
      return
    }
    let figures =
      (overlap.alignment.map { [("alignment", $0)] }
        ?? [("overlap of outputs", overlap.outputs), ("overlap of inputs", overlap.inputs)])
      + [("kept energy", worst.keptEnergy ?? 1)]
    let keepsMore =
      [.loraX, .crossLoRA].contains(options.method)
      && lost.allSatisfy { ($0.overlap?.least ?? 0) >= options.threshold }
    throw PeftoolError(
      .different,
      "\(lost.count) of \(results.count) layers are below the threshold \(options.threshold); "
        + "\(worst.path.printable) has "
        + figures.map { "\($0.0) \(Self.text($0.1))" }.joined(separator: ", ") + "; "
        + (keepsMore ? "--method prolora keeps what lies outside of the subspaces, and " : "")
        + Self.wayOut, path: operands[0].operand.path)
  }

  private static let wayOut = "a lower --threshold moves it all the same"

  private static func text(_ share: Double) -> String { "\((share * 1000).rounded() / 1000)" }
}

extension ModuleResult {
  /// How near two weights are to each other, where an adapter is moved from one to the other.
  package struct Overlap: Equatable, Sendable {
    /// ‖U_sᵀ·U_t‖² / k for the k leading vectors of the outputs, 0 to 1.
    package let outputs: Double
    /// The same of the inputs.
    package let inputs: Double
    /// The mean cosine of singular vectors and their counterparts; nil where they are not paired.
    package var alignment: Double?

    /// That of the side which is less near.
    fileprivate var least: Double { min(outputs, inputs) }
  }

  /// The least of what a layer's transfer is judged by.
  fileprivate var survival: Double {
    let kept = keptEnergy ?? 1
    guard let overlap else { return kept }
    return min(kept, overlap.alignment ?? overlap.least)
  }
}
