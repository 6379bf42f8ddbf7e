package import Checkpoints
package import Files
package import JSON
package import Tensors

/// What a merge will write, decided from names, shapes and configurations; of values at most both
/// ends of tied embeddings are read, to tell whether they are one.
package struct MergePlan: Sendable {
  /// How adapters are merged.
  package struct Options: Sendable {
    /// A factor for each adapter's whole change.
    package var weights: [Double]
    /// When sums are rounded.
    package var rounding = Rounding.once
    /// The dtype of all floating tensors that are written; nil keeps each tensor's own.
    package var dtype: DType?
    /// The base's tensors that are quantized next: sums of low-rank changes are kept in f32 for it.
    ///
    /// DoRA's products are rounded to the tensor's dtype all the same, as PEFT does
    /// (`DoraLinearVariant.merge_safe`).
    package var singles: Set<ExactName> = []
    /// The types that some tensors are written in, whatever `dtype` says: scales and offsets of codes
    /// that stay, of which the rounding of those that change is measured.
    package var dtypes: [ExactName: DType] = [:]
    /// What the result's configuration says of its codes, where these stay.
    package var quantization: [JSON.Member] = []
    /// Whether an adapter whose base was changed at its start is merged all the same.
    package var allowsMutatedBase = false

    package init(weights: [Double]) { self.weights = weights }
  }

  /// What is merged into.
  package let base: BaseModel
  /// What is merged, in the order given.
  package let adapters: [Adapter]
  /// How.
  package let options: Options
  /// The tensors in the order of the base's files, added ones behind the tensor that they belong
  /// to.
  package let tensors: [OutputTensor]
  /// The model's configuration, where it has to follow.
  package let config: JSON?
  /// What has changed in it: keys with their new values.
  package let configSettings: [JSON.Member]
  /// What the user should know: one sentence each.
  package let notes: [String]

  /// Plans the merge of adapters into a base.
  ///
  /// - Throws: `different` where an adapter does not fit the base, `unsupported` where peftool has
  ///   no formula for it, `damaged` and `io` from reading configurations.
  package init(
    _ checkpoint: Checkpoint, _ adapters: [Adapter], _ options: Options
  ) throws(PeftoolError) {
    precondition(adapters.count == options.weights.count && !adapters.isEmpty)
    if !options.allowsMutatedBase { try Self.refuseMutation(adapters) }
    let base = try BaseModel(checkpoint, replication: Self.replication(adapters))
    var resolved: [ChangeResolver.Result] = []
    for adapter in adapters {
      let result = ChangeResolver(adapter, base: base).resolve(maximumFaultCount: 1)
      if let fault = result.faults.first { throw fault }
      resolved.append(result)
    }
    let ends = TiedEnds(base, &resolved)
    self.base = base
    self.adapters = adapters
    self.options = options

    var planner = TensorPlanner(options: options, resolved: resolved)
    for tensor in base.tensors {
      try planner.add(tensor)
      if let output = ends.untied, tensor.name == base.inputEmbedding?.name {
        try planner.add(output)
      }
    }
    try planner.refuseUnused()
    tensors = planner.tensors
    var edits = ConfigEdits(base: base)
    if ends.isUntied { edits.untie() }
    edits.resize(to: planner.vocabularySize(of: base))
    edits.replicate()
    // One of weight 0 has no part in anything.
    try edits.stretch(by: zip(adapters, options.weights).filter { $1 != 0 }.map(\.0))
    if let dtype = options.dtype { edits.setDType(dtype) }
    edits.keep(quantization: options.quantization)
    config = edits.result
    configSettings = edits.settings
    notes = Self.notes(checkpoint, adapters) + edits.notes
  }

  private static func refuseMutation(_ adapters: [Adapter]) throws(PeftoolError) {
    for adapter in adapters {
      guard let mutation = adapter.configuration.baseMutation else { continue }
      throw PeftoolError(
        .unsupported,
        "init_lora_weights is \"\(mutation.printable)\", which changed the base before training: "
          + "the adapter fits only that changed base. Convert it in PEFT "
          + "(path_initial_model_for_weight_conversion), or merge into the changed base with "
          + "--allow-mutated-base",
        path: adapter.checkpoint.adapterConfigPath ?? adapter.path)
    }
  }

  private static func replication(_ adapters: [Adapter]) throws(PeftoolError) -> [Range<Int>] {
    let first = adapters[0].configuration.layerReplication
    for adapter in adapters where adapter.configuration.layerReplication != first {
      throw PeftoolError(
        .different, "has another layer_replication than \(adapters[0].path.printable)",
        path: adapter.checkpoint.adapterConfigPath ?? adapter.path)
    }
    return first
  }

  private static func notes(_ checkpoint: Checkpoint, _ adapters: [Adapter]) -> [String] {
    checkpoint.leftBehind + adapters.flatMap { $0.ignored(for: "merged weights") }
  }
}

/// What becomes of tied embeddings.
private struct TiedEnds {
  /// Whether the ends have to be written apart.
  var isUntied = false
  /// The output embedding to be added; nil where the base has one already.
  var untied: BaseModel.Tensor?

  /// Gives each end its changes: a shared change goes to both, and any other unties them.
  init(_ base: BaseModel, _ resolved: inout [ChangeResolver.Result]) {
    guard base.isTied, let input = base.inputEmbedding else { return }
    let inputName = ExactName(input.name)
    let found = resolved.flatMap(\.changes.values).filter(\.isOutput).map(\.target)
      .min { $0.name.precedesByBytes($1.name) }
    let output =
      base.outputEmbedding ?? found
      ?? BaseModel.Tensor(name: base.untiedOutputName, stored: input.stored)
    let outputName = ExactName(output.name)
    isUntied = resolved.contains { result in
      let change = result.changes[inputName]?.change
      return result.changes[outputName] != nil
        || change?.own != nil && change?.isOwnShared == false
        || change?.update != nil && change?.isUpdateShared == false
    }
    guard isUntied || base.outputEmbedding != nil else { return }
    for place in resolved.indices {
      let atInput = resolved[place].changes[inputName]?.change ?? Change()
      let atOutput = resolved[place].changes[outputName]?.change ?? Change()
      let both = [
        (input, atInput.joined(withSharedOf: atOutput)),
        (output, atOutput.joined(withSharedOf: atInput)),
      ]
      for (target, change) in both where change.own != nil || change.update != nil {
        resolved[place].changes[ExactName(target.name)] = .init(target: target, change: change)
      }
    }
    if base.outputEmbedding == nil { untied = output }
  }
}

extension Change {
  /// The change, with what the other end's change does to the shared parameter.
  fileprivate func joined(withSharedOf other: Change) -> Change {
    var change = self
    if change.own == nil, other.isOwnShared { change.own = other.own }
    if change.update == nil, other.isUpdateShared {
      change.update = other.update
      change.updateShape = other.updateShape
    }
    return change
  }
}

extension ChangeResolver.Resolved {
  fileprivate var isOutput: Bool {
    BaseModel.isOutputEmbedding(String(target.name.dropLast(".weight".count)))
  }
}

/// Collects the tensors that are written.
private struct TensorPlanner {
  let options: MergePlan.Options
  let resolved: [ChangeResolver.Result]
  var tensors: [OutputTensor] = []

  init(options: MergePlan.Options, resolved: [ChangeResolver.Result]) {
    self.options = options
    self.resolved = resolved
  }

  mutating func add(_ tensor: BaseModel.Tensor) throws(PeftoolError) {
    let name = ExactName(tensor.name)
    var base = tensor.stored
    var isOwn = false
    var changes: [OutputTensor.WeightedChange] = []
    for (result, weight) in zip(resolved, options.weights) {
      guard var change = result.changes[name]?.change else { continue }
      if let own = change.own {
        isOwn = resolved.count == 1 && weight == 1
        let isResized = own.shape != tensor.stored.shape
        if isResized, isOwn {
          base = own
          change.own = nil
        } else if isResized {
          throw own.at(
            PeftoolError(
              .unsupported,
              "has shape \(own.shape.shapeText), the base \(tensor.stored.shape.shapeText): "
                + "only one adapter alone, with weight 1, can resize a tensor"))
        }
      }
      let shape = (change.own ?? base).shape
      if change.update != nil, change.updateShape != shape, let part = change.parts.last {
        throw part.at(
          PeftoolError(
            .different,
            "is for a tensor of shape \(change.updateShape.shapeText), "
              + "'\(tensor.name.printable)' has \(shape.shapeText)"))
      }
      // A weight of 0 leaves the base as it is, to the bit.
      guard weight != 0, change.own != nil || change.update != nil else { continue }
      changes.append(.init(change: change, weight: weight))
    }
    let baseDType = tensor.stored.dtype
    let isSum =
      !isOwn && !changes.isEmpty
      && changes.allSatisfy { change in
        switch change.change.update {
        case .lowRank, .sparse: true
        default: false
        }
      }
    let isSingle = isSum && options.singles.contains(ExactName(tensor.stored.info.name))
    let ownDType = options.dtypes[ExactName(tensor.name)]
    let dtype = isSingle ? .f32 : ownDType ?? options.dtype ?? baseDType
    tensors.append(
      OutputTensor(
        name: tensor.name, dtype: baseDType.isComputable ? dtype : baseDType,
        base: base, baseDType: baseDType, isOwn: isOwn, changes: changes,
        isMeasured: !changes.isEmpty && options.rounding == .once
          && (ownDType != nil || dtype.bitCount <= 16),
        fileIndex: tensor.stored.info.fileIndex))
  }

  /// Refuses a change of a tensor that is not written: an adapter may give the output embedding,
  /// where the base has no tensor of it, more than one name.
  func refuseUnused() throws(PeftoolError) {
    let written = Set(tensors.map { ExactName($0.name) })
    let unused = resolved.lazy.flatMap(\.changes).filter { !written.contains($0.key) }
      .min { $0.key.string.precedesByBytes($1.key.string) }
    guard let unused, let part = unused.value.change.parts.first else { return }
    throw part.at(
      PeftoolError(
        .different, "changes '\(unused.key.string.printable)', which the merged model has not"))
  }

  /// The rows of the input embedding that is written.
  func vocabularySize(of base: BaseModel) -> Int? {
    guard let name = base.inputEmbedding?.name else { return nil }
    return tensors.first { $0.name.isExactly(name) }?.base.rowCount
  }
}
