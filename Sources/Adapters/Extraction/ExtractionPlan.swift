import Files
import JSON
import Patterns
import Tensors

/// What of a fine-tuned model becomes what of an adapter: modules with pairs, and what is saved
/// whole.
///
/// Of the tensors nothing is read, but for embeddings where no configuration says whether they are
/// tied.
struct ExtractionPlan: Sendable {
  /// A module that gets a pair.
  struct Module: Sendable {
    let path: String
    let kind: LowRankAdapter.Kind
    let base: BaseWeight
    let tuned: BaseWeight
    /// Its bias before and after.
    var bias: (base: StoredTensor, tuned: StoredTensor)?
    /// Whether it is the output embedding's pair, too.
    var isTied = false

    var byteCount: Int { base.stored.info.byteCount + tuned.stored.info.byteCount }
    var elementCount: Int { base.stored.info.elementCount }
    var layer: Layer {
      let inputShape =
        kind == .convolution ? Array(base.stored.shape.dropFirst()) : [base.inputCount]
      return Layer(
        path: path, kind: kind, outputCount: base.outputCount, inputShape: inputShape)
    }
  }

  /// A module that is saved whole where one of its parameters has changed.
  struct Whole: Sendable {
    let path: String
    /// Whether it is the input embedding that the output shares.
    let isTied: Bool
    var parameters: [(name: String, base: StoredTensor, tuned: StoredTensor)] = []
  }

  private(set) var modules: [Module] = []
  private(set) var wholes: [Whole] = []
  /// The modules that stay out.
  private(set) var excluded: [String] = []
  /// Those of them that were to be saved, too.
  private(set) var excludedOfSaved: [String] = []
  private var wholePlaces: [ExactName: Int] = [:]

  /// Pairs two models.
  ///
  /// - Throws: `different` where a tensor is missing in one, has another shape, or a glob matches no
  ///   module; `unsupported` where a module may be a Conv1D or not.
  init(base: BaseModel, tuned: BaseModel, _ options: Extraction.Options) throws(PeftoolError) {
    let pairs = try TensorPairs(base: base, tuned: tuned)
    var globs = UsedGlobs(options)
    var places: [ExactName: Int] = [:]
    var biases: [TensorPairs.Pair] = []
    let hasTiedEnds = base.isTied && tuned.isTied
    for pair in pairs.all {
      let isEmbedding =
        BaseModel.isEmbedding(pair.module.lastComponent(after: "."))
        || pair.base.info.name == base.inputEmbedding?.stored.info.name
          && !BaseModel.isOutputEmbedding(pair.module)
      let isTied = hasTiedEnds && pair.name == base.inputEmbedding?.name
      let fate = globs.fate(of: pair.module)
      if case .excluded(let isSaved) = fate {
        if excluded.last != pair.module {
          excluded.append(pair.module)
          if isSaved { excludedOfSaved.append(pair.module) }
        }
        continue
      }
      try pair.checkShape()
      if case .saved = fate {
        save(pair, isTied: isTied)
        continue
      }
      // A magnitude for each column of one end would be one for each row of the other.
      guard let kind = pair.kind(isEmbedding: isEmbedding), !(options.isDoRA && isTied),
        !options.isSparse || kind == .linear
      else {
        if pair.parameter == "bias" { biases.append(pair) } else { save(pair, isTied: isTied) }
        continue
      }
      let isTransposed: Bool
      if kind == .embedding {
        isTransposed = true
      } else if kind == .linear {
        guard let isConv1D = base.isConv1D(pair.module) ?? tuned.isConv1D(pair.module) else {
          throw pair.base.at(
            PeftoolError(
              .unsupported,
              "may be a Conv1D's, which lies turned around: config.json with its model_type has to "
                + "lie beside it"))
        }
        guard !(isConv1D && options.isSparse) else {
          throw pair.base.at(
            PeftoolError(
              .unsupported,
              "is a Conv1D's, and SHiRA has linear layers alone: --save or --exclude its module"))
        }
        isTransposed = isConv1D
      } else {
        isTransposed = false
      }
      places[ExactName(pair.module)] = modules.count
      modules.append(
        Module(
          path: pair.module, kind: kind,
          base: BaseWeight(stored: pair.base, isTransposed: isTransposed),
          tuned: BaseWeight(stored: pair.tuned, isTransposed: isTransposed), isTied: isTied))
    }
    for pair in biases {
      if let place = places[ExactName(pair.module)], modules[place].kind != .embedding,
        pair.base.shape == [modules[place].base.outputCount], pair.base.dtype.isComputable,
        pair.tuned.dtype.isComputable
      {
        modules[place].bias = (pair.base, pair.tuned)
      } else {
        save(pair, isTied: false)
      }
    }
    try globs.check()
    try keepApart()
  }

  /// A module that is saved whole cannot hold one that gets a pair, which PEFT would not find.
  ///
  /// - Throws: `unsupported` where one would.
  private func keepApart() throws(PeftoolError) {
    for module in modules {
      var path = Substring(module.path)
      while let dot = path.lastIndex(of: ".") {
        path = path[..<dot]
        guard let place = wholePlaces[ExactName(String(path))] else { continue }
        throw wholes[place].parameters[0].tuned.at(
          PeftoolError(
            .unsupported,
            "is a parameter of its own beside modules such as \(module.path.printable): --save "
              + "'\(String(path).printable).*', so that they are saved with it"))
      }
    }
  }

  private mutating func save(_ pair: TensorPairs.Pair, isTied: Bool) {
    let name = ExactName(pair.module)
    let place = wholePlaces[name] ?? wholes.count
    if place == wholes.count {
      wholePlaces[name] = place
      wholes.append(Whole(path: pair.module, isTied: isTied))
    }
    wholes[place].parameters.append((pair.parameter, pair.base, pair.tuned))
  }
}

/// The globs of a choice, and which of them have matched.
private struct UsedGlobs {
  enum Fate { case excluded(isSaved: Bool), saved, decomposed }

  private var excluded: [(glob: Glob, isUsed: Bool)]
  private var saved: [(glob: Glob, isUsed: Bool)]

  init(_ options: Extraction.Options) {
    excluded = options.excluded.map { ($0, false) }
    saved = options.saved.map { ($0, false) }
  }

  mutating func fate(of module: String) -> Fate {
    var (isSaved, isExcluded) = (false, false)
    for place in saved.indices where saved[place].glob.matches(module) {
      saved[place].isUsed = true
      isSaved = true
    }
    for place in excluded.indices where excluded[place].glob.matches(module) {
      excluded[place].isUsed = true
      isExcluded = true
    }
    return isExcluded ? .excluded(isSaved: isSaved) : isSaved ? .saved : .decomposed
  }

  func check() throws(PeftoolError) {
    for (option, globs) in [("--exclude", excluded), ("--save", saved)] {
      guard let idle = globs.firstIndex(where: { !$0.isUsed }) else { continue }
      throw PeftoolError(
        .different,
        "\(option) '\(globs[idle].glob.pattern.printable)' matches no module of the models; it has to "
          + "match a whole path, such as *.up_proj does")
    }
  }
}
