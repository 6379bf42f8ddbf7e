import Adapters
import Checkpoints
import Files
import JSON
import Tensors

// A LoRA adapter in llama.cpp's form: for each matrix W that it changes `W.lora_a` and `W.lora_b`,
// and one alpha. llama.cpp adds alpha / r · B·A, with r from the shapes.
extension GGUFWriting {
  /// Plans the conversion of an adapter; of its tensors nothing is read.
  ///
  /// `base` is the folder of the model that it was made for; without one the configuration's
  /// `base_model_name_or_path` is taken for a folder. As in llama.cpp's `convert_lora_to_gguf.py`
  /// only its `config.json` is read, and `dtype` is F32 where it is nil.
  /// - Throws: `unsupported` for what such a file cannot hold, `different` where adapter and base do
  ///   not fit each other, `damaged`, `io`; with the path.
  init(_ adapter: Adapter, base: String?, dtype: DType?) throws(PeftoolError) {
    let dtype = dtype ?? .f32
    source = adapter.checkpoint.source
    self.dtype = dtype
    do throws(PeftoolError) {
      try Self.refuseOthers(adapter.configuration)
    } catch {
      throw error.at(path: adapter.path)
    }
    let (config, path) = try Self.config(of: adapter, base: base)
    let architecture: GGUFArchitecture
    do throws(PeftoolError) {
      // Without a word in the configuration, transformers ties nothing.
      architecture = try GGUFArchitecture(config: config, hasOutput: true)
    } catch {
      throw error.at(path: path)
    }
    do throws(PeftoolError) {
      let positions = StretchedPositions(try adapter.checkpoint.modelConfig)
      if let missing = positions?.missing(in: config) {
        throw missing.refusal(of: "a GGUF file")
      }
      guard Self.adapterDTypes.contains(dtype), let fileType = GGUFFileType.number(of: dtype) else {
        let names = Self.adapterDTypes.map(\.rawValue).joined(separator: ", ")
        throw PeftoolError(
          .unsupported, "an adapter cannot be written as \(dtype.rawValue), expected \(names)")
      }
      let pairs = try Self.pairs(of: adapter, architecture)
      let alpha = try Self.commonAlpha(pairs)
      var fields: [GGUFField] = [
        .text("general.architecture", architecture.family.architecture),
        .text("general.type", "adapter"), .text("adapter.type", "lora"),
      ]
      fields += try GeneralFields.fields(
        folder: adapter.path, config: nil, generation: nil,
        parameterCount: -Self.elementCount(pairs))
      fields += [
        .f32("adapter.lora.alpha", Double(alpha)), .u32("general.file_type", fileType),
        GeneralFields.quantizationVersion,
      ]
      output = try GGUFOutput(
        fields, pairs.flatMap { $0.tensors(alpha: alpha, dtype: dtype, architecture) })
    } catch {
      throw error.at(path: adapter.path)
    }
    notes += adapter.ignored(for: "a LoRA file")
  }

  /// The elements of the matrices that are changed; the sizes stand in config.json, and no file
  /// bounds them.
  private static func elementCount(_ pairs: [LoRAPair]) -> Int {
    pairs.reduce(0) { count, pair in
      let (sum, isOverflow) = count.addingReportingOverflow(pair.place.shape.reduce(1, *))
      return isOverflow ? .max : sum
    }
  }

  /// What llama.cpp's script writes adapters as.
  private static let adapterDTypes: [DType] = [.f32, .f16, .bf16, .q8v0]

  /// The base's `config.json`, and its path.
  private static func config(
    of adapter: Adapter, base: String?
  ) throws(PeftoolError) -> (JSON, path: String) {
    guard let folder = base ?? adapter.configuration.baseName else {
      throw PeftoolError(
        .unsupported, "does not name its base: --base MODEL names the folder", path: adapter.path)
    }
    let path = Folder.path(folder, "config.json")
    guard Folder.isFolder(folder), Folder.exists(path) else {
      throw PeftoolError(
        .unsupported,
        base == nil
          ? "is for \(folder.printable), which is no model's folder here: --base MODEL names one"
          : "--base is \(folder.printable), expected a model's folder with config.json",
        path: adapter.path)
    }
    do throws(PeftoolError) {
      return (try JSON(opening: path), path)
    } catch {
      throw error.at(path: path)
    }
  }

  /// The way out that is always there.
  private static let merging =
    "llama.cpp's adapters cannot hold it: peftool merge BASE ADAPTER -o MODEL, then convert MODEL"

  private static func refuseOthers(
    _ configuration: AdapterConfiguration
  ) throws(PeftoolError) {
    guard configuration.method == .lora else {
      throw PeftoolError(.unsupported, "is \(configuration.method.name), and \(merging)")
    }
    if let mutation = configuration.baseMutation {
      throw PeftoolError(
        .unsupported,
        "init_lora_weights is \(mutation.printable), which changed the base: the adapter fits only "
          + "that; PEFT's path_initial_model_for_weight_conversion saves one for the base itself")
    }
    for (isSet, what) in [
      (configuration.usesDoRA, "use_dora is true: DoRA has magnitudes besides B·A"),
      (configuration.pooledGroupSize != nil, "use_qalora is true: A sees means of inputs"),
      (configuration.hasLoRABias, "lora_bias is true: B has a bias"),
      (!configuration.targetParameters.isEmpty, "target_parameters is set"),
      (!configuration.layerReplication.isEmpty, "layer_replication is set"),
      (configuration.tokens != nil, "trainable_token_indices is set"),
    ] where isSet {
      throw PeftoolError(
        .unsupported,
        "\(what), and \(merging)"
          + (configuration.usesDoRA ? ", or train a LoRA without use_dora" : ""))
    }
  }

  /// The modules with their places in the base.
  private static func pairs(
    of adapter: Adapter, _ architecture: GGUFArchitecture
  ) throws(PeftoolError) -> [LoRAPair] {
    guard architecture.layerCount <= GGUFTensors.maximumLayerCount else {
      throw PeftoolError(
        .unsupported,
        "its base has \(architecture.layerCount) layers, expected at most "
          + "\(GGUFTensors.maximumLayerCount)")
    }
    var places: [ExactName: GGUFTensors.Place] = [:]
    for place in GGUFTensors.places(architecture) where place.shape.count == 2 {
      places[ExactName(place.name)] = place
    }
    var pairs: [LoRAPair] = []
    for module in adapter.modules {
      guard let first = module.parts.values.min(by: { $0.name.precedesByBytes($1.name) }) else {
        continue
      }
      do throws(PeftoolError) {
        for case (.own, let own) in module.parts {
          throw PeftoolError(
            .unsupported, "is a whole tensor of the model, and \(merging)", tensor: own.name)
        }
        guard let place = places[ExactName(module.path + ".weight")], module.depth == 0 else {
          throw PeftoolError(
            .different,
            "matches no matrix of a \(architecture.family.className) of "
              + "\(architecture.layerCount) layers"
              + (architecture.isTied ? ", whose embeddings are tied" : ""))
        }
        pairs.append(try LoRAPair(module, at: place, of: adapter, isTied: architecture.isTied))
      } catch {
        throw error.at(tensor: first.name, path: adapter.checkpoint.source.path)
      }
    }
    return pairs
  }

  /// The alpha of most modules, of several the first's: only the others' B is multiplied.
  private static func commonAlpha(_ pairs: [LoRAPair]) throws(PeftoolError) -> Float {
    var counts: [Float: Int] = [:]
    for pair in pairs { counts[Float(pair.alpha), default: 0] += 1 }
    let most = counts.values.max() ?? 0
    let alpha = pairs.lazy.map { Float($0.alpha) }.first { counts[$0] == most } ?? 0
    guard alpha.isFinite, alpha != 0 else {
      // llama.cpp takes 0 for the word that there is no alpha.
      throw PeftoolError(
        .unsupported, "alpha is \(alpha), which llama.cpp has no adapters for")
    }
    return alpha
  }

  /// What an adapter has for one matrix.
  private struct LoRAPair {
    let place: GGUFTensors.Place
    let a: StoredTensor
    let b: StoredTensor
    /// Whether A (r, vocabulary) and B (hidden, r) are an embedding's.
    let isEmbedding: Bool
    /// The alpha that gives this module's scaling when it is divided by the rank.
    let alpha: Double

    init(
      _ module: Adapter.Module, at place: GGUFTensors.Place, of adapter: Adapter, isTied: Bool
    ) throws(PeftoolError) {
      self.place = place
      var rest = module.parts
      isEmbedding = rest[.embeddingA] != nil
      guard
        let a = rest.removeValue(forKey: isEmbedding ? .embeddingA : .loraA),
        let b = rest.removeValue(forKey: isEmbedding ? .embeddingB : .loraB)
      else {
        throw PeftoolError(
          .unsupported, "is no whole pair of lora_A and lora_B, and \(GGUFWriting.merging)")
      }
      if let (_, other) = rest.min(by: { $0.value.name.precedesByBytes($1.value.name) }) {
        throw PeftoolError(
          .unsupported, "stands beside lora_A and lora_B, and \(GGUFWriting.merging)",
          tensor: other.name)
      }
      guard !(isTied && place.gguf == "token_embd.weight") else {
        throw PeftoolError(
          .unsupported,
          "changes one end of tied embeddings, and \(GGUFWriting.merging)")
      }
      (self.a, self.b) = (adapter.stored(a), adapter.stored(b))
      let (outputs, inputs) = (place.shape[0], place.shape[1])
      let rank = try adapter.configuration.rank(of: module.path)
      for (tensor, shape) in [
        (a, [rank, isEmbedding ? outputs : inputs]), (b, [isEmbedding ? inputs : outputs, rank]),
      ] where tensor.shape != shape {
        throw PeftoolError(
          .different,
          "is \(tensor.shape.shapeText), expected \(shape.shapeText) for rank \(rank) and a matrix "
            + "of \(place.shape.shapeText)", tensor: tensor.name)
      }
      alpha =
        try adapter.configuration.scaling(of: module.path, keptRank: rank) * Double(rank)
    }

    /// The two tensors of the file, for its alpha.
    func tensors(
      alpha: Float, dtype: DType, _ architecture: GGUFArchitecture
    ) -> [GGUFOutput.Tensor] {
      var a = GGUFOutput.Stored(source: a.source, info: a.info)
      var b = GGUFOutput.Stored(source: b.source, info: b.info)
      if isEmbedding { a.order = .transposed }
      if let rows = place.interleavedRowCount { b.order = .interleaved(rows) }
      if Float(self.alpha) != alpha { b.factor = self.alpha / Double(alpha) }
      return [("lora_a", a), ("lora_b", b)].map { ending, stored in
        GGUFOutput.Tensor(
          name: "\(place.gguf).\(ending)",
          dtype: GGUFFileType.dtype(ofRow: stored.shape.last ?? 0, as: dtype),
          content: .stored(stored))
      }
    }
  }
}
