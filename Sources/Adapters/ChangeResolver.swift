import Checkpoints
package import Files
package import JSON
import Tensors

/// Finds what one adapter does to each tensor of a base, from names and shapes.
///
/// Of the adapter's values only those are read that have to be compared (`ensure_weight_tying`).
package struct ChangeResolver: Sendable {
  let base: BaseModel
  let adapter: Adapter
  let names: ModuleNames
  /// Whether biases of `lora_B` stay with their updates: a module need not have a bias then.
  private let leavesBiases: Bool
  var configuration: AdapterConfiguration { adapter.configuration }

  package init(_ adapter: Adapter, base: BaseModel, leavesBiases: Bool = false) {
    self.adapter = adapter
    self.leavesBiases = leavesBiases
    self.base = base
    names = ModuleNames(base)
  }

  /// A tensor of the merged model and what the adapter makes of it.
  package struct Resolved: Sendable {
    /// The tensor; the output embedding of a tied model stands here with the input's values.
    package let target: BaseModel.Tensor
    /// What becomes of its values.
    package var change: Change
  }

  /// What came of it: changes by the names of their tensors, and what did not fit.
  package struct Result: Sendable {
    /// The changes; no two of one tensor.
    package var changes: [ExactName: Resolved] = [:]
    /// Each names the adapter's file and tensor.
    package var faults: [PeftoolError] = []
  }

  /// Resolves every module; a module that does not fit becomes a fault, and the others go on until
  /// there are `maximumFaultCount` of them.
  package func resolve(maximumFaultCount: Int = .max) -> Result {
    var result = Result()
    // Full values come first: they may have another size, which updates then have to fit.
    for isOwn in [true, false] {
      for module in adapter.modules where result.faults.count < maximumFaultCount {
        do throws(PeftoolError) {
          try isOwn ? resolveOwn(module, into: &result) : resolveUpdates(module, into: &result)
        } catch {
          let tensor = module.parts.values.map(\.name).min { $0.precedesByBytes($1) }
          result.faults.append(error.at(tensor: tensor, path: adapter.checkpoint.source.path))
        }
      }
    }
    do throws(PeftoolError) {
      try shareTiedEnds(&result)
    } catch {
      result.faults.append(error.at(path: adapter.checkpoint.source.path))
    }
    return result
  }

  private func resolveOwn(
    _ module: Adapter.Module, into result: inout Result
  ) throws(PeftoolError) {
    let parts = module.parts.sorted { $0.value.name.precedesByBytes($1.value.name) }
    for case (.own(let parameter), let tensor) in parts {
      try resolveOwn(module, parameter, tensor, into: &result)
    }
  }

  private func resolveUpdates(
    _ module: Adapter.Module, into result: inout Result
  ) throws(PeftoolError) {
    var rest = module.parts.filter { if case .own = $0.key { false } else { true } }
    func take(_ part: AdapterKey.Part) -> StoredTensor? {
      rest.removeValue(forKey: part).map(adapter.stored)
    }
    if let a = take(.embeddingA) {
      let b = try required(take(.embeddingB), "lora_embedding_B", beside: a)
      try resolveEmbedding(module, a, b, magnitude: take(.magnitude), into: &result)
    }
    if let a = take(.loraA) {
      let b = try required(take(.loraB), "lora_B", beside: a)
      let parameters = targetParameters(of: module.path)
      if let groupSize = configuration.pooledGroupSize {
        try resolvePooled(module, a, b, groupSize: groupSize, into: &result)
      } else if parameters.isEmpty {
        try resolveLoRA(
          module, a, b, e: take(.loraE), magnitude: take(.magnitude), bias: take(.loraBias),
          into: &result)
      } else {
        try resolveParameter(module, a, b, among: parameters, into: &result)
      }
    }
    if let l = take(.ia3) { try resolveIA3(module, l, into: &result) }
    if let values = take(.shiraWeight) {
      let indices = try required(take(.shiraIndices), "shira_indices", beside: values)
      try resolveSparse(module, values, indices, into: &result)
    }
    if let rows = take(.tokens) { try resolveTokens(module, rows, into: &result) }
    if let (_, left) = rest.min(by: { $0.value.name.precedesByBytes($1.value.name) }) {
      throw adapter.stored(left).at(
        PeftoolError(.different, "stands alone: its other half is not in the file"))
    }
  }

  /// A parameter of a module in the base.
  ///
  /// - Throws: `different` with the nearest names where there is none.
  func target(
    _ module: String, _ parameter: String, for tensor: StoredTensor
  ) throws(PeftoolError) -> BaseModel.Tensor {
    if let found = names.tensor(module, parameter) { return found }
    if base.isTied, base.outputEmbedding == nil, parameter == "weight",
      BaseModel.isOutputEmbedding(module), let input = base.inputEmbedding
    {
      return BaseModel.Tensor(name: "\(module).weight", stored: input.stored)
    }
    if names.tensor(module, "in_proj_weight") != nil {
      throw tensor.at(
        PeftoolError(.unsupported, "is for a MultiheadAttention, which peftool does not merge"))
    }
    let wanted = "\(module).\(parameter)"
    let nearest = names.nearest(to: wanted).map { "'\($0.printable)'" }.joined(separator: ", ")
    throw tensor.at(
      PeftoolError(
        .different,
        "matches no tensor '\(wanted.printable)' of \(base.checkpoint.path.printable)"
          + (nearest.isEmpty ? "" : "; nearest: \(nearest)")
          + "; --key-prefix FROM=TO maps another prefix"))
  }

  /// Records a change of a tensor.
  ///
  /// - Throws: `unsupported` where the adapter changes it in two ways.
  func add(
    _ change: Change, to target: BaseModel.Tensor, from tensor: StoredTensor,
    into result: inout Result
  ) throws(PeftoolError) {
    guard target.stored.dtype.isComputable else {
      throw target.stored.at(
        PeftoolError(
          .unsupported,
          "is \(target.stored.dtype.rawValue), and \(tensor.info.name.printable) "
            + "changes it; expected F64, F32, F16, BF16, F8_E4M3 or F8_E5M2"))
    }
    try refuseScaled(target)
    let name = ExactName(target.name)
    var resolved = result.changes[name] ?? Resolved(target: target, change: Change())
    if let own = change.own {
      guard resolved.change.own == nil else { throw taken(target, tensor) }
      resolved.change.own = own
      resolved.change.isOwnShared = change.isOwnShared
    }
    if let update = change.update {
      guard resolved.change.update == nil else { throw taken(target, tensor) }
      resolved.change.update = update
      resolved.change.updateShape = shape(of: target, in: result)
      resolved.change.isUpdateShared = change.isUpdateShared
    }
    result.changes[name] = resolved
  }

  /// Refuses an F8 weight that means something only together with a scale beside it.
  private func refuseScaled(_ target: BaseModel.Tensor) throws(PeftoolError) {
    guard [.f8E4M3, .f8E5M2].contains(target.stored.dtype), target.name.hasSuffix(".weight") else {
      return
    }
    let module = target.name.dropLast(".weight".count)
    for scale in ["weight_scale_inv", "weight_scale", "scale_weight"] {
      guard let found = base["\(module).\(scale)"] else { continue }
      throw target.stored.at(
        PeftoolError(
          .unsupported,
          "is \(target.stored.dtype.rawValue) scaled by '\(found.name.printable)', "
            + "expected plain numbers: dequantize the base first"))
    }
  }

  private func taken(_ target: BaseModel.Tensor, _ tensor: StoredTensor) -> PeftoolError {
    tensor.at(
      PeftoolError(
        .unsupported,
        "changes '\(target.name.printable)', which the adapter changes in another way, too"))
  }

  /// A parameter's full values: `modules_to_save`, biases, saved embeddings.
  private func resolveOwn(
    _ module: Adapter.Module, _ parameter: String, _ info: TensorInfo, into result: inout Result
  ) throws(PeftoolError) {
    let tensor = adapter.stored(info)
    let target = try target(module.path, parameter, for: tensor)
    let isEmbedding =
      target.name == base.inputEmbedding?.name || target.name == base.outputEmbedding?.name
      || BaseModel.isOutputEmbedding(module.path)
    let mayResize = isEmbedding && tensor.shape.count == 2 && target.stored.shape.count == 2
    guard
      tensor.shape == target.stored.shape
        || mayResize && tensor.columnCount == target.stored.columnCount && tensor.rowCount > 0
    else { throw misfit(tensor, "of shape \(target.stored.shape.shapeText)", target) }
    let isSaved = configuration.modulesToSave.contains {
      module.path == $0 || module.path.hasSuffix(".\($0)")
    }
    try add(
      Change(own: tensor, isOwnShared: !isSaved || configuration.ensuresWeightTying),
      to: target, from: tensor, into: &result)
  }

  /// LoRA, DoRA and AdaLoRA on linear layers, Conv1D and convolutions.
  private func resolveLoRA(
    _ module: Adapter.Module, _ a: StoredTensor, _ b: StoredTensor, e: StoredTensor?,
    magnitude: StoredTensor?, bias: StoredTensor?, into result: inout Result
  ) throws(PeftoolError) {
    let target = try target(module.path, "weight", for: a)
    let rank = a.rowCount
    try checkRank(module.path, a, b)
    if configuration.method == .adaLoRA {
      let e = try required(e, "lora_E", beside: a)
      guard e.shape == [rank, 1] else { throw misfit(e, "of shape [\(rank), 1]", target) }
    } else if let e {
      throw e.at(PeftoolError(.different, "belongs to AdaLoRA, the configuration says LoRA"))
    }
    // AdaLoRA may have taken all of a module's ranks away.
    guard rank > 0 else { return }
    let layout = try layout(module, a, b, target, shape(of: target, in: result))
    var d = LowRank(
      a: a, b: b, e: e, rank: rank,
      scaling: try configuration.scaling(of: module.path, keptRank: rank), layout: layout)
    if leavesBiases { d.bias = bias }
    try add(
      Change(update: try withMagnitude(d, magnitude, target)), to: target, from: a, into: &result)
    guard (bias != nil) == configuration.hasLoRABias else {
      throw (bias ?? b).at(
        PeftoolError(
          .different,
          bias == nil
            ? "has no lora_B.bias beside it, the configuration says lora_bias"
            : "is a bias of lora_B, the configuration says no lora_bias"))
    }
    if let bias, leavesBiases {
      guard bias.shape == [b.rowCount] else {
        throw misfit(bias, "of shape [\(b.rowCount)]", target)
      }
    } else if let bias {
      guard let target = names.tensor(module.path, "bias") else {
        throw bias.at(
          PeftoolError(
            .unsupported,
            "is a bias of lora_B, and '\(module.path.printable)' has none in "
              + "\(base.checkpoint.path.printable) that it could be added to, as in PEFT; "
              + "'generate' and 'evaluate' apply it beside the weights"))
      }
      guard bias.shape == target.stored.shape else {
        throw misfit(bias, "of shape \(target.stored.shape.shapeText)", target)
      }
      try add(
        Change(update: .add(bias, scaling: d.scaling)), to: target, from: bias, into: &result)
    }
  }

  /// LoRA and DoRA on an embedding: W (vocabulary, dim), A (r, vocabulary), B (dim, r).
  private func resolveEmbedding(
    _ module: Adapter.Module, _ a: StoredTensor, _ b: StoredTensor, magnitude: StoredTensor?,
    into result: inout Result
  ) throws(PeftoolError) {
    let target = try target(module.path, "weight", for: a)
    try checkRank(module.path, a, b)
    let shape = shape(of: target, in: result)
    guard a.shape.count == 2, b.shape.count == 2, shape == [a.shape[1], b.shape[0]] else {
      throw misfit(a, "for an embedding of shape \(shape.shapeText)", target)
    }
    let d = LowRank(
      a: a, b: b, rank: a.rowCount,
      scaling: try configuration.scaling(of: module.path, keptRank: a.rowCount),
      layout: .transposed, isRoundedByPEFT: true)
    try add(
      Change(update: try withMagnitude(d, magnitude, target)), to: target, from: a, into: &result)
  }

  /// (IA)³: a factor for each input of a feed-forward layer, else for each output and its bias.
  private func resolveIA3(
    _ module: Adapter.Module, _ l: StoredTensor, into result: inout Result
  ) throws(PeftoolError) {
    guard configuration.method == .ia3 else {
      throw l.at(PeftoolError(.different, "belongs to (IA)³, the configuration says otherwise"))
    }
    let target = try target(module.path, "weight", for: l)
    let shape = shape(of: target, in: result)
    let count = l.info.elementCount
    let isTransposed = shape.count == 2 && base.isConv1D(module.path) ?? configuration.isFanInFanOut
    guard shape.count >= 2, l.shape.count == shape.count else {
      throw misfit(l, "for a tensor of shape \(shape.shapeText)", target)
    }
    // Linear: (1, in) or (out, 1). Convolutions: (1, n, 1…) for both, so that the counts decide.
    let inner = shape[1]
    let (inputs, outputs) = isTransposed ? (shape[0], inner) : (inner, shape[0])
    let isLinear = shape.count == 2
    let fitsInputs = count == inputs && l.shape[1] == count
    let fitsOutputs = count == outputs && l.shape[isLinear ? 0 : 1] == count
    guard fitsInputs || fitsOutputs else {
      throw misfit(l, "with \(inputs) or \(outputs) factors", target)
    }
    guard !(fitsInputs && fitsOutputs) || count == 1 else {
      throw l.at(
        PeftoolError(
          .unsupported, "fits inputs and outputs of a square convolution: peftool cannot tell"))
    }
    let repeated = inner > 0 ? target.stored.columnCount / inner : 0
    let axis: Change.Axis = fitsInputs != isTransposed ? .columns(repeated: repeated) : .rows
    try add(Change(update: .multiply(l, axis)), to: target, from: l, into: &result)
    if !fitsInputs, let bias = names.tensor(module.path, "bias") {
      guard bias.stored.shape == [outputs] else {
        throw misfit(l, "for a bias of shape \(bias.stored.shape.shapeText)", bias)
      }
      try add(Change(update: .multiply(l, .rows)), to: bias, from: l, into: &result)
    }
  }

  /// Rows of an embedding that were trained alone; despite their name they are full values.
  private func resolveTokens(
    _ module: Adapter.Module, _ x: StoredTensor, into result: inout Result
  ) throws(PeftoolError) {
    let target = try target(module.path, "weight", for: x)
    let isInput = target.name == base.inputEmbedding?.name
    let rows: [Int]? =
      switch configuration.tokens {
      // Of a tied model the file may have both ends.
      case .inputEmbedding(let rows):
        isInput || base.isTied && isOutput(target) || configuration.method == .trainableTokens
          ? rows : nil
      // As in PEFT any end of the path will do; of several the one that says most.
      case .modules(let modules):
        modules.filter { module.path.hasSuffix($0.key) }
          .max { $0.key.utf8.count < $1.key.utf8.count }?.value
      case nil: nil
      }
    guard let rows else {
      throw x.at(PeftoolError(.different, "the configuration has no token indices for it"))
    }
    let shape = shape(of: target, in: result)
    guard shape.count == 2, x.shape == [rows.count, shape[1]] else {
      throw misfit(
        x, "with \(rows.count) rows for a tensor of shape \(shape.shapeText)", target)
    }
    let vocabulary = shape[0]
    if let row = rows.first(where: { !(0..<vocabulary).contains($0) }) {
      throw x.at(
        PeftoolError(.different, "is for token \(row), the embedding has \(vocabulary) rows"))
    }
    guard Set(rows).count == rows.count else {
      throw x.at(PeftoolError(.damaged, "the configuration names a token twice"))
    }
    let hasTwoEnds = adapter.modules.contains {
      $0.parts[.tokens] != nil && BaseModel.isOutputEmbedding($0.path)
    }
    try add(
      Change(update: .replaceRows(x, rows: rows), isUpdateShared: isInput && !hasTwoEnds),
      to: target, from: x, into: &result)
  }
}
