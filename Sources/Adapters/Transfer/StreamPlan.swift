import Checkpoints
import Files
import JSON
import Tensors

/// What is carried from hidden stream to hidden stream: by layer of the new model the adapter's modules
/// of the layer that stands for it.
struct StreamPlan {
  private(set) var modules: [CarriedModule] = []
  /// Where each of them meets the streams.
  private(set) var ends: [StreamEnds] = []
  /// (vocabulary, width) each.
  let embeddings: (source: StoredTensor, target: StoredTensor)
  let tokens: [Transfer.SharedToken]
  /// What the user should know: one sentence each.
  private(set) var notes: [String] = []

  /// - Throws: as `Transfer`.
  init(
    _ adapter: LowRankAdapter, from source: BaseModel, to target: BaseModel,
    _ tokens: [Transfer.SharedToken]?
  ) throws(PeftoolError) {
    embeddings = (try Self.embedding(of: source), try Self.embedding(of: target))
    // A tokenizer may have more tokens than its model.
    let counts = (source: embeddings.source.rowCount, target: embeddings.target.rowCount)
    if let tokens {
      self.tokens = tokens.filter { $0.source < counts.source && $0.target < counts.target }
    } else {
      self.tokens = try Self.allTokens(embeddings, of: target)
    }
    let hasHeads = adapter.modules.contains { $0.path.contains(".self_attn.") }
    if hasHeads { try Self.checkHeads(source, target) }
    let layers = try (
      source: LayerPositions(of: source.tensors.map(\.name), layerCount: nil).layerCount,
      target: LayerPositions(of: target.tensors.map(\.name), layerCount: nil).layerCount
    )
    let names = (source: ModuleNames(source), target: ModuleNames(target))
    var byLayer: [Int?: [Origin]] = [:]
    for module in adapter.modules {
      let origin = try origin(of: module, in: source, names.source)
      byLayer[LayerPositions.layer(of: module.path)?.index, default: []].append(origin)
    }
    if layers.source > 0, layers.target > 0 {
      let map = LayerMap(from: layers.source, to: layers.target)
      for (layer, own) in map.sources.enumerated() {
        for origin in byLayer[own] ?? [] {
          let path = LayerPositions.path(origin.module.path, inLayer: layer)
          try append(origin, path, (source, target), names)
        }
      }
      noteLayers(map, layers)
    }
    for origin in byLayer[nil] ?? [] {
      try append(origin, origin.module.path, (source, target), names)
    }
    guard !modules.isEmpty else {
      throw PeftoolError(
        .different, "no layer that the adapter changes stands for one of the new model",
        path: target.checkpoint.path)
    }
  }

  /// A module in the model that it was made for.
  private struct Origin {
    let module: LowRankAdapter.Module
    let weight: BaseWeight
    let stream: HiddenStream
  }

  /// Looks for a module's weight, which has to fit the stream.
  private func origin(
    of module: LowRankAdapter.Module, in source: BaseModel, _ names: ModuleNames
  ) throws(PeftoolError) -> Origin {
    guard let stream = HiddenStream(of: module.path) else {
      throw PeftoolError(
        .unsupported,
        "\(module.path.printable) is no layer of which it is known where it meets the hidden stream",
        path: source.checkpoint.path)
    }
    let weight = try BaseWeight(of: module, in: source, names)
    let width = embeddings.source.columnCount
    for (isOfStream, count, what) in [
      (stream.norm != nil, weight.inputCount, "inputs"),
      (stream.isAdded, weight.outputCount, "outputs"),
    ] where isOfStream && count != width {
      throw weight.stored.at(
        PeftoolError(.different, "has \(count) \(what), and the embedding's rows have \(width)"))
    }
    if BaseModel.isOutputEmbedding(module.path),
      let moved = tokens.first(where: { $0.source != $0.target })
    {
      throw PeftoolError(
        .unsupported,
        "\(module.path.printable) has an output for each token by its number, and token "
          + "\(moved.source) is \(moved.target) in the new model", path: source.checkpoint.path)
    }
    return Origin(module: module, weight: weight, stream: stream)
  }

  /// Adds a module with its counterpart in the new model.
  private mutating func append(
    _ origin: Origin, _ path: String, _ models: (source: BaseModel, target: BaseModel),
    _ names: (source: ModuleNames, target: ModuleNames)
  ) throws(PeftoolError) {
    let (module, stream) = (origin.module, origin.stream)
    let width = embeddings.target.columnCount
    let shape = [
      stream.isAdded ? width : module.outputCount, stream.norm == nil ? module.inputCount : width,
    ]
    let weight: BaseWeight
    do throws(PeftoolError) {
      weight = try BaseWeight(of: module, at: path, shape: shape, in: models.target, names.target)
    } catch {
      // Without a tensor there is no such module.
      guard error.kind == .different, error.tensor != nil else { throw error }
      throw PeftoolError(
        .different, "\(error.reason): of widths only that of the hidden stream may differ",
        tensor: error.tensor, path: error.path)
    }
    var norms: (source: StoredTensor, target: StoredTensor)?
    if let norm = stream.norm, let newNorm = HiddenStream(of: path)?.norm {
      norms = (
        try Self.norm(norm, in: models.source, names.source, embeddings.source.columnCount),
        try Self.norm(newNorm, in: models.target, names.target, width)
      )
    }
    modules.append(
      CarriedModule(module: module, path: path, source: origin.weight, target: weight))
    ends.append(StreamEnds(norms: norms, isAdded: stream.isAdded))
  }

  /// A norm's weight, (width).
  private static func norm(
    _ path: String, in model: BaseModel, _ names: ModuleNames, _ width: Int
  ) throws(PeftoolError) -> StoredTensor {
    guard let stored = names.tensor(path, "weight")?.stored else {
      throw PeftoolError(
        .different, "has no \(path).weight, through which its layers read the stream",
        path: model.checkpoint.path)
    }
    guard stored.shape == [width], stored.dtype.isComputable else {
      throw stored.at(
        PeftoolError(
          .different,
          "is \(stored.dtype.rawValue) of shape \(stored.shape.shapeText), expected \(width) numbers"
        ))
    }
    return stored
  }

  /// The input embedding of a model of the Llama family.
  private static func embedding(of model: BaseModel) throws(PeftoolError) -> StoredTensor {
    let type = model.modelType ?? "none"
    guard HiddenStream.modelTypes.contains(type) else {
      throw PeftoolError(
        .unsupported,
        "model_type is \(type.printable), and it is known of "
          + "\(HiddenStream.modelTypes.joined(separator: ", ")) where layers meet the hidden stream",
        path: model.checkpoint.path)
    }
    guard let stored = model.inputEmbedding?.stored, stored.shape.count == 2,
      stored.dtype.isComputable
    else {
      throw PeftoolError(
        .different, "has no input embedding of numbers, by which streams are compared",
        path: model.checkpoint.path)
    }
    return stored
  }

  /// All tokens, of vocabularies of one size.
  private static func allTokens(
    _ embeddings: (source: StoredTensor, target: StoredTensor), of target: BaseModel
  ) throws(PeftoolError) -> [Transfer.SharedToken] {
    let counts = (embeddings.source.rowCount, embeddings.target.rowCount)
    guard counts.0 == counts.1 else {
      throw PeftoolError(
        .different,
        "has a vocabulary of \(counts.1), the old model one of \(counts.0): which tokens are the same "
          + "a tokenizer.json beside each would tell", path: target.checkpoint.path)
    }
    return (0..<counts.0).map { Transfer.SharedToken(source: $0, target: $0) }
  }

  /// Refuses heads of other numbers or sizes, whose outputs mean other things.
  private static func checkHeads(
    _ source: BaseModel, _ target: BaseModel
  ) throws(PeftoolError) {
    func number(_ key: String, _ model: BaseModel) throws(PeftoolError) -> Int? {
      guard let value = model.config?[key], value != .null else { return nil }
      return try value.int(named: key)
    }
    func heads(_ model: BaseModel) throws(PeftoolError) -> [(String, Int?)] {
      let count = try number("num_attention_heads", model)
      let width = try number("hidden_size", model)
      var size = try number("head_dim", model)
      if size == nil, let count, let width, count > 0 { size = width / count }
      return [
        ("num_attention_heads", count),
        ("num_key_value_heads", try number("num_key_value_heads", model) ?? count),
        ("head_dim", size),
      ]
    }
    for (own, other) in zip(try heads(source), try heads(target)) where own.1 != other.1 {
      throw PeftoolError(
        .different,
        "\(own.0) is \(other.1.map(String.init) ?? "missing"), of the old model "
          + "\(own.1.map(String.init) ?? "missing"): heads are carried as they are alone",
        path: target.checkpoint.path)
    }
  }

  private mutating func noteLayers(_ map: LayerMap, _ counts: (source: Int, target: Int)) {
    guard counts.source != counts.target else { return }
    let unused = map.unused(of: counts.source)
    notes.append(
      "\(counts.target) layers for \(counts.source): those of the old model that stand for them are "
        + map.sources.map(String.init).joined(separator: ", ")
        + (unused.isEmpty
          ? "" : "; left out are " + unused.map(String.init).joined(separator: ", ")))
  }
}
