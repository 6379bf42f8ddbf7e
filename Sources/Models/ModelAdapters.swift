package import Adapters
package import Checkpoints
package import Files
import JSON
import Tensors

/// Adapters as they are applied beside a model's weights, which stay as they are.
///
/// One LoRA or DoRA adapter is applied as it is; of several LoRA adapters each module gets the sum,
/// as one pair of the ranks of all. Module paths, ranks and shapes are checked as a merge checks
/// them. The whole tensors and the rows of the embedding that one adapter alone has are taken in the
/// place of the model's. What else it may change is refused: `peftool merge` folds it in.
package struct ModelAdapters: Sendable {
  /// What the adapter has in the place of the model's own tensors.
  package let own: OwnTensors
  /// The pairs by the paths of their modules.
  private let pairs: [ExactName: LoRA]
  /// The first file of each pair, for messages.
  private let paths: [ExactName: String]
  /// What the user should know: one sentence each.
  package let notes: [String]

  /// Reads adapters for a model.
  ///
  /// - Parameters:
  ///   - weights: what the whole change of each adapter is multiplied by.
  ///   - isTrained: whether they are trained on, and have gradients.
  ///   - dropout: the share of their inputs that they leave out then.
  /// - Throws: `different` where an adapter does not fit the model; `unsupported` where it changes
  ///   what is neither a linear layer nor its own tensor, where its base was changed at its start,
  ///   and for DoRA and own tensors beside another adapter or with a weight other than 1; `io`,
  ///   `damaged`.
  package init(
    _ adapters: [Adapter], weights: [Double], for checkpoint: Checkpoint, isTrained: Bool = false,
    dropout: Double = 0
  ) throws(PeftoolError) {
    precondition(adapters.count == weights.count, "a weight an adapter")
    guard !adapters.isEmpty else {
      (own, pairs, paths, notes) = (.none, [:], [:], [])
      return
    }
    let base = try BaseModel(checkpoint.adaptable)
    let isSole = adapters.count == 1 && weights[0] == 1
    var own = OwnTensors()
    var parts: [ExactName: [Part]] = [:]
    for (adapter, weight) in zip(adapters, weights) {
      do throws(PeftoolError) {
        try Self.refuseMutation(adapter.configuration)
      } catch {
        throw error.at(path: adapter.checkpoint.adapterConfigPath ?? adapter.path)
      }
      let found = ChangeResolver(adapter, base: base, leavesBiases: true)
        .resolve(maximumFaultCount: 1)
      if let fault = found.faults.first { throw fault }
      for (name, resolved) in found.changes.sorted(by: { $0.key.string < $1.key.string }) {
        if isSole { try own.add(resolved, of: base) }
        guard let part = try Part(resolved, weight: weight, isSole: isSole) else { continue }
        if part.magnitude != nil, !isSole {
          throw part.low.a.at(
            PeftoolError(
              .unsupported,
              "is of DoRA, which is applied alone and with weight 1; 'peftool combine' makes one "
                + "adapter of several, and 'peftool merge' takes weights"))
        }
        let module = name.string.moduleOfWeight ?? name.string
        parts[ExactName(module), default: []].append(part)
      }
    }
    var pairs: [ExactName: LoRA] = [:]
    for (module, parts) in parts {
      pairs[module] = try Self.pair(parts, isFrozen: !isTrained, dropout: dropout)
    }
    self.own = own
    self.pairs = pairs
    paths = parts.compactMapValues { $0.first?.low.a.path }
    notes = adapters.flatMap { $0.ignored(for: "a running model") }
  }

  /// The adapter of a module, by its path.
  package func pair(of module: String) -> LoRA? { pairs[ExactName(module)] }

  /// Refuses modules that are no linear layers of a model.
  ///
  /// - Throws: `unsupported` with the first in the order of their names.
  package func checkAllUsed(by model: Llama) throws(PeftoolError) {
    let used = Set(model.adapters.map { ExactName($0.module) })
    let rest = pairs.keys.filter { !used.contains($0) }.map(\.string)
    guard let first = rest.min(by: { $0.precedesByBytes($1) }) else { return }
    throw PeftoolError(
      .unsupported,
      "changes \(first.printable), which is no linear layer of the model; \(Self.wayOut)",
      path: paths[ExactName(first)])
  }

  static let wayOut = "'peftool merge' folds the adapter into the model"

  private static func refuseMutation(
    _ configuration: AdapterConfiguration
  ) throws(PeftoolError) {
    if let mutation = configuration.baseMutation {
      throw PeftoolError(
        .unsupported,
        "init_lora_weights is \"\(mutation.printable)\", which changed the base before training: "
          + "the adapter fits only that changed base; save_pretrained with "
          + "path_initial_model_for_weight_conversion makes one for the base as it was")
    }
    if !configuration.layerReplication.isEmpty {
      throw PeftoolError(.unsupported, "has layer_replication; \(wayOut)")
    }
  }

  /// One pair of all: s·B·A, or the sum of several, as [B₁ B₂ …]·[s₁·A₁; s₂·A₂; …].
  ///
  /// - Throws: `io`, and `damaged` where a value is NaN or infinite.
  private static func pair(
    _ parts: [Part], isFrozen: Bool, dropout: Double
  ) throws(PeftoolError) -> LoRA {
    let isAlone = parts.count == 1
    var (a, b): ([Float], [Float]) = ([], [])
    for part in parts {
      let low = part.low
      // Alone a pair of QA-LoRA stays one, and can be trained on.
      var rows =
        try isAlone && low.columnRepeat > 1
        ? low.a.values(Float.self) : low.inputRows(Float.self)
      if !isAlone { for place in rows.indices { rows[place] *= Float(part.scaling) } }
      a += rows
      let columns = try low.b.values(Float.self)
      let outputs = columns.count / low.rank
      for rank in 0..<low.rank {
        for output in 0..<outputs { b.append(columns[output * low.rank + rank]) }
      }
    }
    let rank = parts.reduce(0) { $0 + $1.low.rank }
    let low = parts[0].low
    var bias: TrainableParameter?
    for part in parts {
      guard let own = part.low.bias else { continue }
      let sum =
        bias
        ?? TrainableParameter(
          own.info.name, Rows(1, own.info.elementCount), isDecayed: false, isFrozen: isFrozen)
      let factor = isAlone ? 1 : Float(part.scaling)
      for (place, value) in try own.values(Float.self).enumerated() {
        sum.values[0, place] += factor * value
      }
      bias = sum
    }
    return LoRA(
      a: TrainableParameter(low.a.info.name, Rows(a, columns: a.count / rank), isFrozen: isFrozen),
      b: TrainableParameter(low.b.info.name, Rows(b, columns: b.count / rank), isFrozen: isFrozen),
      magnitude: try parts[0].magnitude.map { (magnitude) throws(PeftoolError) in
        let values = try magnitude.values(Float.self)
        return TrainableParameter(
          magnitude.info.name, Rows(values, columns: values.count), isFrozen: isFrozen)
      }, bias: bias, groupSize: isAlone ? low.columnRepeat : 1,
      scaling: isAlone ? Float(parts[0].scaling) : 1, dropout: dropout)
  }
}

/// What one adapter makes of one linear layer.
private struct Part {
  let low: LowRank
  let magnitude: StoredTensor?
  /// The factor on B·A, the adapter's weight in it.
  let scaling: Double

  /// Takes a change; nil where it has no low-rank update.
  ///
  /// - Throws: `unsupported` for a change that is no low-rank update of a linear layer, but for what
  ///   a sole adapter has in the place of a tensor or its rows.
  init?(
    _ resolved: ChangeResolver.Resolved, weight: Double, isSole: Bool
  ) throws(PeftoolError) {
    let change = resolved.change
    func refused(_ tensor: StoredTensor, _ what: String) -> PeftoolError {
      tensor.at(
        PeftoolError(
          .unsupported, "\(what), which is not applied beside the weights; \(ModelAdapters.wayOut)")
      )
    }
    if let own = change.own, !isSole, try !own.isSame(as: resolved.target.stored) {
      throw own.at(
        PeftoolError(
          .unsupported,
          "takes the place of '\(resolved.target.name.printable)', as only an adapter by itself, "
            + "of weight 1, does beside the weights; \(ModelAdapters.wayOut)"))
    }
    switch change.update {
    case nil: return nil
    case .replaceRows where isSole: return nil
    case .lowRank(let low) where low.layout == .plain && !change.isUpdateShared:
      (self.low, magnitude) = (low, nil)
    case .dora(let low, let magnitude, .rows)
    where low.layout == .plain && !change.isUpdateShared:
      if let bias = low.bias { throw refused(bias, "is a bias of lora_B beside DoRA") }
      (self.low, self.magnitude) = (low, magnitude)
    case .lowRank(let low), .dora(let low, _, _):
      throw refused(low.a, "changes '\(resolved.target.name.printable)', no linear layer alone")
    case .sparse(let s): throw refused(s.values, "is a sparse change of SHiRA")
    case .multiply(let tensor, _): throw refused(tensor, "holds factors of (IA)³")
    case .add(let tensor, _): throw refused(tensor, "changes a bias")
    case .replaceRows(let tensor, _): throw refused(tensor, "holds rows of an embedding")
    }
    scaling = low.scaling * weight
  }
}

extension Llama {
  /// Loads a model with adapters beside its weights.
  ///
  /// - Parameter shared: as of the other.
  /// - Throws: as the other, and `unsupported` for an adapter of what is no linear layer.
  package convenience init(
    _ checkpoint: Checkpoint, adapters: ModelAdapters, sharing shared: SharedTensors? = nil
  ) throws(PeftoolError) {
    try self.init(checkpoint, replacing: adapters.own, sharing: shared) { (module, _, _) in
      adapters.pair(of: module)
    }
    try adapters.checkAllUsed(by: self)
  }
}
