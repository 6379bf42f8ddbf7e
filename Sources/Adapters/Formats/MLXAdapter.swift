import Checkpoints
import Files
import JSON
import Tensors

/// mlx-lm's adapters: `adapter_config.json` and `adapters.safetensors` (`mlx_lm/tuner` in 0.32).
///
/// `lora_a` lies (in, rank) and `lora_b` (rank, out), the transposes of PEFT's; one rank and one
/// `scale`, which is s itself, serve all modules.
enum MLXAdapter {
  /// What makes a configuration mlx-lm's, and not PEFT's.
  static func isConfiguration(_ config: JSON) -> Bool {
    config["peft_type"] == nil
      && (config["fine_tune_type"] != nil || config["lora_parameters"] != nil)
  }

  // MARK: reading

  /// Reads an adapter.
  ///
  /// - Throws: `damaged`, and `unsupported` for full fine-tunes, experts, DoRA of embeddings, and
  ///   embeddings that may be tied.
  static func read(
    _ checkpoint: Checkpoint, _ hints: AdapterFormat.Hints
  ) throws(PeftoolError) -> LowRankAdapter {
    guard let config = try checkpoint.adapterConfig else {
      throw PeftoolError(
        .unsupported, "has no \(Adapter.configurationName)", path: checkpoint.path)
    }
    let settings: Settings
    do throws(PeftoolError) {
      settings = try Settings(config)
    } catch {
      throw error.at(path: checkpoint.adapterConfigPath)
    }
    var modules: [LowRankAdapter.Module] = []
    for module in try parts(of: checkpoint) {
      modules.append(try pair(module, settings, hints))
    }
    do throws(PeftoolError) {
      var adapter = try LowRankAdapter(modules)
      guard adapter.usesDoRA == settings.usesDoRA else {
        throw PeftoolError(
          .damaged,
          "fine_tune_type is \"\(settings.usesDoRA ? "dora" : "lora")\", but modules have "
            + (settings.usesDoRA ? "no m" : "an m"))
      }
      adapter.baseName = settings.baseName
      adapter.positions = StretchedPositions(try checkpoint.modelConfig)
      // mlx-lm has no models of another kind.
      adapter.task = "CAUSAL_LM"
      return adapter
    } catch {
      throw error.at(path: checkpoint.path)
    }
  }

  /// What the configuration says of the weights.
  private struct Settings {
    let usesDoRA: Bool
    let rank: Int
    let scale: Double
    let baseName: String?

    init(_ config: JSON) throws(PeftoolError) {
      let type = try config["fine_tune_type"]?.string(named: "fine_tune_type") ?? "lora"
      guard ["lora", "dora"].contains(type) else {
        throw PeftoolError(
          .unsupported,
          "fine_tune_type is \"\(type.printable)\", expected \"lora\" or \"dora\""
            + (type == "full" ? ": the whole weights, and no adapter" : ""))
      }
      usesDoRA = type == "dora"
      rank = try config.int(at: "lora_parameters", "rank")
      scale = try config.double(at: "lora_parameters", "scale")
      // Early mlx-lm multiplied by scale · alpha / rank, today's by scale, and the file does not
      // tell which one has trained it.
      guard config["lora_parameters"]?["alpha"] == nil else {
        throw PeftoolError(
          .unsupported,
          "lora_parameters.alpha is of an early mlx-lm, which multiplied by scale · alpha / rank: "
            + "put that number into scale and remove alpha; where today's mlx-lm has trained the "
            + "adapter, remove alpha alone")
      }
      if case .string(let name) = config["model"] { baseName = name } else { baseName = nil }
    }
  }

  private struct Parts {
    let path: String
    var tensors: [String: AdapterTensor] = [:]
  }

  private static func parts(of checkpoint: Checkpoint) throws(PeftoolError) -> [Parts] {
    var modules: [Parts] = []
    var places: [ExactName: Int] = [:]
    for info in checkpoint.tensors {
      let tensor = AdapterTensor(info, in: checkpoint.source)
      let dot = info.name.utf8.lastIndex(of: UInt8(ascii: "."))
      let (path, part) =
        dot.map { (String(info.name[..<$0]), String(info.name[$0...].dropFirst())) } ?? ("", "")
      guard !path.isEmpty, ["lora_a", "lora_b", "m"].contains(part) else {
        throw tensor.stored.at(
          PeftoolError(
            .unsupported,
            "is no key of mlx-lm's, expected MODULE.lora_a, MODULE.lora_b or "
              + "MODULE.m"))
      }
      guard dtypes.contains(info.dtype) else {
        throw tensor.stored.at(
          PeftoolError(.unsupported, "is \(info.dtype.rawValue), expected F32, F16 or BF16"))
      }
      let place = places[ExactName(path)] ?? modules.count
      if place == modules.count {
        places[ExactName(path)] = place
        modules.append(Parts(path: path))
      }
      modules[place].tensors[part] = tensor
    }
    return modules
  }

  private static func pair(
    _ module: Parts, _ settings: Settings, _ hints: AdapterFormat.Hints
  ) throws(PeftoolError) -> LowRankAdapter.Module {
    guard let a = module.tensors["lora_a"], let b = module.tensors["lora_b"] else {
      let one = module.tensors.values.first
      let error = PeftoolError(.damaged, "has not both lora_a and lora_b beside it")
      throw one.map { $0.stored.at(error) } ?? error
    }
    guard a.shape.count == 2 else {
      throw a.stored.at(
        PeftoolError(
          .unsupported,
          "has shape \(a.shape.shapeText), a pair for each expert, expected [in, rank]: the other "
            + "formats name the parameters of experts otherwise"))
    }
    let kind: LowRankAdapter.Kind =
      isEmbedding(module.path, a, b, hints.base) ? .embedding : .linear
    if kind == .embedding {
      try checkEmbedding(
        module.path, hasMagnitude: module.tensors["m"] != nil, hints.base, at: a.stored)
    }
    return try LowRankAdapter.Module(
      module.path, kind: kind, a: a.transposed(), b: b.transposed(),
      magnitude: module.tensors["m"]
    ) { (rank) throws(PeftoolError) in
      guard rank == settings.rank else {
        throw a.stored.at(
          PeftoolError(
            .different, "has rank \(rank), lora_parameters.rank is \(settings.rank)"))
      }
      return (settings.scale, settings.scale * Double(rank))
    }
  }

  /// Whether a module is an embedding: its factors have the names and the form of a linear layer's.
  private static func isEmbedding(
    _ path: String, _ a: AdapterTensor, _ b: AdapterTensor, _ base: BaseModel?
  ) -> Bool {
    if let base, b.shape.count == 2,
      let shape = ModuleNames(base).tensor(path, "weight")?.stored.shape,
      a.shape[0] != b.shape[1]
    {
      // A Conv1D's weight lies as an embedding's does.
      return shape == [a.shape[0], b.shape[1]] && base.isConv1D(path) != true
    }
    return BaseModel.isInputEmbedding(path)
  }

  /// mlx-lm changes both ends of tied embeddings and has a norm for each token in DoRA; the others
  /// change one end and have a norm for each column.
  private static func checkEmbedding(
    _ path: String, hasMagnitude: Bool, _ base: BaseModel?, at stored: StoredTensor
  ) throws(PeftoolError) {
    guard !hasMagnitude else {
      throw stored.at(
        PeftoolError(
          .unsupported,
          "is of DoRA on the embedding \(path.printable): mlx-lm has a norm for each token, PEFT "
            + "one for each column, and neither can be made of the other"))
    }
    guard let base else {
      throw stored.at(
        PeftoolError(
          .unsupported,
          "changes the embedding \(path.printable); where it is tied, mlx-lm changes both ends and "
            + "PEFT one: --base MODEL shows whether it is"))
    }
    guard !base.isTied else {
      throw stored.at(
        PeftoolError(
          .unsupported,
          "changes the embedding \(path.printable), which is tied in this base: mlx-lm changes "
            + "both ends and PEFT one"))
    }
  }

  // MARK: writing

  private static let dtypes: [DType] = [.f32, .f16, .bf16]

  /// The files that mlx-lm loads.
  ///
  /// - Throws: `unsupported` for convolutions, for embeddings that may be tied, for DoRA of
  ///   embeddings, and for dtypes that MLX has not.
  static func files(
    for adapter: LowRankAdapter, _ hints: AdapterFormat.Hints
  ) throws(PeftoolError) -> AdapterFiles {
    let modules = adapter.modules
    let rank = modules.map(\.rank).max() ?? 0
    let scale = modules.map(\.scaling).filter { $0 != 0 }.mostFrequent ?? 0
    var items: [AdapterFiles.Item] = []
    for module in modules {
      try check(module, hints)
      let b = module.scaling == scale ? module.b : module.b.multiplied(by: module.scaling / scale)
      items.append(
        .init("\(module.path).lora_a", module.a.padded(toRows: rank).transposed()))
      items.append(.init("\(module.path).lora_b", b.transposed().padded(toRows: rank)))
      if let magnitude = module.magnitude { items.append(.init("\(module.path).m", magnitude)) }
    }
    var files = AdapterFiles(
      folder: items, fileName: "adapters.safetensors", metadata: nil,
      configuration: configuration(of: adapter, rank: rank, scale: scale), indent: 4)
    files.positions = adapter.positions
    if let positions = adapter.positions {
      files.notes.append(
        "config.json tells the positions that it was trained with (\(positions.scaling.text)), of "
          + "which mlx-lm takes no notice: the model has to have them")
    }
    let padded = modules.count { $0.rank != rank }
    if padded > 0 {
      files.notes.append(
        "mlx-lm has one rank for all modules: zeros fill \(padded) of \(modules.count) pairs up "
          + "to \(rank), which changes nothing")
    }
    let folded = modules.filter { $0.scaling != scale }
    if !folded.isEmpty {
      let isExact = folded.allSatisfy { ($0.scaling / scale).isPowerOfTwo }
      files.notes.append(
        "mlx-lm has one scale for all modules: lora_b of \(folded.count) of \(modules.count) is "
          + "multiplied by its own scaling, in F32, "
          + (isExact ? "by powers of two and so exactly" : "rounded once"))
    }
    return files
  }

  private static func check(
    _ module: LowRankAdapter.Module, _ hints: AdapterFormat.Hints
  ) throws(PeftoolError) {
    guard module.kind != .convolution else {
      throw module.a.stored.at(
        PeftoolError(.unsupported, "is of a convolution, which mlx-lm has no adapters for"))
    }
    for tensor in module.parts where !dtypes.contains(tensor.dtype) {
      throw tensor.stored.at(
        PeftoolError(
          .unsupported, "is \(tensor.dtype.rawValue), which MLX has not: F32, F16 or BF16"))
    }
    if module.kind == .embedding {
      try checkEmbedding(
        module.path, hasMagnitude: module.magnitude != nil, hints.base, at: module.a.stored)
    }
  }

  private static func configuration(
    of adapter: LowRankAdapter, rank: Int, scale: Double
  ) -> JSON {
    let paths = adapter.modules.map(\.path).sorted { $0.precedesByBytes($1) }
    // mlx-lm looks keys up among the names within each of the last num_layers layers, and then
    // among the names within the model. Whole paths are found there only, each once, and so the
    // number of layers has no part in it.
    let layers = Set(paths.compactMap { LayerName($0)?.layer })
    var members: [JSON.Member] = [
      .init("fine_tune_type", .string(adapter.usesDoRA ? "dora" : "lora")),
      .init("num_layers", .number(layers.count)),
      .init(
        "lora_parameters",
        .object([
          .init("dropout", .number("0.0")), .init("keys", .array(paths.map(JSON.string))),
          .init("rank", .number(rank)), .init("scale", .number(scale)),
        ])),
    ]
    if let name = adapter.baseName { members.append(.init("model", .string(name))) }
    return .object(members)
  }
}

extension Double {
  /// Whether a product with it only changes the exponent.
  fileprivate var isPowerOfTwo: Bool { isFinite && self != 0 && abs(significand) == 1 }
}
