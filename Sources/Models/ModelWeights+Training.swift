import Adapters
import Checkpoints
import Files
import Tensors

// Which of the weights that are read are trained.
extension ModelWeights {
  /// Whether a module is trained whole.
  func isTrained(_ module: String) -> Bool { training.contains(module) }

  /// A norm's weight or a bias that is trained from where it is.
  mutating func makeTrained(_ name: String, vector: Rows) -> TrainableParameter {
    let parameter = TrainableParameter(training.name(of: name), vector, isDecayed: false)
    trainedWeights.append(TrainedWeight(parameter, shape: [vector.columns]))
    return parameter
  }

  /// A module's weight that is trained whole, in f32 from where it is.
  ///
  /// - Parameter other: another module that has the same weight.
  /// - Throws: `unsupported` where it is quantized.
  mutating func makeTrained(
    _ module: String, whole weight: FrozenWeight, alsoIn other: String? = nil
  ) throws(PeftoolError) -> TrainableParameter {
    guard !weight.isQuantized else {
      throw PeftoolError(
        .unsupported,
        "is quantized, and codes cannot be trained whole "
          + (training.isWholeModel || training.sharesGradients
            ? "(--method)" : "(--modules-to-save)"),
        tensor: module + ".weight", path: checkpoint.path)
    }
    let name = training.name(of: module + ".weight")
    let parameter =
      sharedGradient(of: module, weight).map {
        TrainableParameter(name, weight.widened, sharing: $0)
      } ?? TrainableParameter(name, weight.widened)
    trainedWeights.append(
      TrainedWeight(
        parameter, shape: [weight.outputs, weight.inputs],
        alsoAs: other.map { training.name(of: $0 + ".weight") }))
    return parameter
  }

  /// The memory at which the gradients of a layer's matrix take turns with those of other layers.
  private mutating func sharedGradient(of module: String, _ weight: FrozenWeight) -> Rows? {
    let parts = module.split(separator: ".")
    guard training.sharesGradients, let place = parts.firstIndex(where: { Int($0) != nil }) else {
      return nil
    }
    let name = parts[(place + 1)...].joined(separator: ".")
    let gradient = sharedGradients[name] ?? Rows(weight.outputs, weight.inputs)
    sharedGradients[name] = gradient
    return gradient
  }

  /// Refuses an adapter of a module that is trained whole, where PEFT would put both.
  func checkNoAdapter(
    besides module: String, _ adapter: () throws(PeftoolError) -> LoRA?
  ) throws(PeftoolError) {
    if training.takesPlaceOfAdapter(module) { return }
    guard try adapter() != nil else { return }
    throw PeftoolError(
      .unsupported,
      "'\(module)' is one of both --target-modules and --modules-to-save, where a whole name such "
        + "as \(module.split(separator: ".").last ?? "") would leave it to the latter",
      path: checkpoint.path)
  }

  /// The input embedding: all of it is trained, or the rows of some tokens, or nothing.
  ///
  /// - Throws: as `matrix`; `different` for tokens that there are not, `unsupported` for those that
  ///   cannot be trained.
  mutating func table(_ configuration: LlamaConfiguration) throws(PeftoolError) -> ModuleWeight {
    let module = TrainedWeights.embedding
    let table = try matrix(
      module + ".weight", configuration.vocabularySize, configuration.hiddenSize)
    let isTied = configuration.isTied
    if training.containsTable(isTied: isTied) {
      guard training.tokens.isEmpty else {
        throw PeftoolError(
          .different,
          "the embedding is trained whole (--modules-to-save), and with it the rows of all "
            + "tokens: --trainable-tokens has nothing to add", path: checkpoint.path)
      }
      // PEFT saves a table of both ends twice, a model once.
      let other = isTied && !training.isWholeModel ? TrainedWeights.head : nil
      return .whole(try makeTrained(module, whole: table, alsoIn: other))
    }
    // Rows of an adapter that is not trained are the model's.
    let isTrained = !training.tokens.isEmpty
    let tokens = isTrained ? training.tokens : own.tokens
    guard !tokens.isEmpty else { return .frozen(table) }
    if isTrained { try checkTokens(configuration) }
    let parameter = TrainableParameter(TrainedWeight.rowsName, try rows(of: tokens, from: table))
    if isTrained {
      trainedWeights.append(
        TrainedWeight(parameter, shape: [tokens.count, configuration.hiddenSize]))
    }
    return .rows(table, TrainedRows(parameter, tokens: tokens))
  }

  /// Refuses tokens whose rows cannot be trained.
  ///
  /// - Throws: as `table`.
  private func checkTokens(_ configuration: LlamaConfiguration) throws(PeftoolError) {
    let count = configuration.vocabularySize
    for token in training.tokens {
      guard (0..<count).contains(token) else {
        throw PeftoolError(
          .different,
          "has no token \(token) (--trainable-tokens): its embedding has \(count)",
          path: checkpoint.path)
      }
      guard configuration.isTied || token != configuration.paddingRow else {
        throw PeftoolError(
          .unsupported,
          "token \(token) is its pad_token_id, whose row of the embedding gets no gradient "
            + "(--trainable-tokens)", path: checkpoint.path)
      }
    }
  }

  /// The rows of some tokens: the adapter's where it has them, or else the table's.
  ///
  /// - Throws: as `StoredTensor.values`.
  private func rows(of tokens: [Int], from table: FrozenWeight) throws(PeftoolError) -> Rows {
    let rows = Rows(tokens.count, table.inputs)
    let known = try own.rows?.tensor.values(Float.self) ?? []
    let places = Dictionary(uniqueKeysWithValues: own.tokens.enumerated().map { ($1, $0) })
    for (place, token) in tokens.enumerated() {
      let row = rows.rows(place..<place + 1)
      if let own = places[token] {
        row.copy(from: Array(known[own * table.inputs..<(own + 1) * table.inputs]))
      } else {
        table.widen(rows: token..<token + 1, columns: 0..<table.inputs, into: row)
      }
    }
    return rows
  }

  /// The output embedding that is the input embedding's table, with an adapter where that is frozen.
  ///
  /// - Throws: `unsupported` for an adapter of a table that is trained at the other end; what
  ///   `adapter` throws; `different` where the file has another table for the head.
  mutating func tiedHead(
    _ table: ModuleWeight, _ adapter: (FrozenWeight) throws(PeftoolError) -> LoRA?
  ) throws(PeftoolError) -> Projection {
    let module = TrainedWeights.head
    modules.append(module)
    try checkCopy(of: TrainedWeights.embedding, as: module)
    switch table {
    case .frozen(let weight):
      return Projection(module, weight, adapter: try adapter(weight))
    case .whole: return Projection(module, table)
    case .rows(let weight, _):
      guard try adapter(weight) == nil else {
        throw PeftoolError(
          .unsupported,
          "'\(module)' is the input embedding too, rows of which are trained: it cannot have an "
            + "adapter besides", path: checkpoint.path)
      }
      return Projection(module, table)
    }
  }

  /// Refuses a weight that is not the one that `config.json` ties it to: transformers would load
  /// both.
  ///
  /// - Throws: `different`, `io`.
  private func checkCopy(of module: String, as other: String) throws(PeftoolError) {
    guard let copy = checkpoint[other + ".weight"], let tensor = checkpoint[module + ".weight"]
    else { return }
    let stored = StoredTensor(copy, in: checkpoint.source)
    guard try !stored.isSame(as: StoredTensor(tensor, in: checkpoint.source)) else { return }
    throw stored.at(
      PeftoolError(
        .different,
        "is not the same as \(tensor.name), and config.json ties them (tie_word_embeddings): "
          + "false there has each used as it is"))
  }
}

extension LlamaConfiguration {
  /// The row of the input embedding that torch gives no gradient; counted from the end if negative.
  var paddingRow: Int? {
    guard let token = paddingToken else { return nil }
    return token < 0 ? vocabularySize + token : token
  }
}

extension FrozenWeight {
  /// All of it, in f32.
  fileprivate var widened: Rows {
    let rows = Rows(outputs, inputs)
    widen(rows: 0..<outputs, columns: 0..<inputs, into: rows)
    return rows
  }
}
