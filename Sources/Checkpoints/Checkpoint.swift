package import Files
package import JSON
package import Tensors

/// What a path holds: tensors, and the files that lie with them.
///
/// The content decides what a file is, not its name. Only headers, the index and the folder's list
/// of names are read.
package struct Checkpoint: Sendable {
  /// How the tensors are kept.
  package enum Kind: Sendable {
    /// One file.
    case file
    /// Shards with an index.
    case sharded
    /// A GGUF model: one file, or several without an index.
    case gguf
  }

  /// How the files are built.
  package enum Format: String, Sendable {
    case safetensors
    /// What `torch.save` writes.
    case torch
    case gguf
    /// Safetensors, packed with what lay beside them.
    case packed
  }

  /// The file that makes tensors an adapter's.
  package static let adapterConfigName = "adapter_config.json"
  /// The file of an adapter's tensors.
  static let adapterName = "adapter_model.safetensors"
  /// The same of mlx-lm.
  static let mlxAdapterName = "adapters.safetensors"

  /// The path that the user gave.
  package let path: String
  /// Where the tensors are read from.
  package private(set) var source: any TensorSource
  /// The files that hold them: `source` itself, or what it is computed from.
  private let stored: any TensorSource
  /// Whether that is one file or several.
  package let kind: Kind
  /// The checkpoint's folder, where the path is one or is an index; nil for a single file.
  package let directory: String?
  /// The path of `adapter_config.json`, where the tensors are an adapter's.
  package let adapterConfigPath: String?
  /// The names of the folder's other files, sorted: configuration, tokenizer and the like.
  ///
  /// Without hidden ones and without `otherWeights`. Of a packed file those in it. Empty for another
  /// file alone.
  package let otherFiles: [String]
  /// The names of files in the folder that look like weights but are no part of this checkpoint.
  ///
  /// Another format's, or a second index. They are not carried along, since they would not fit what
  /// is written.
  package let otherWeights: [String]
  /// Whether the tensors are computed from those in the files when they are read.
  package private(set) var isView = false

  private var places: [ExactName: Int] = [:]
  /// What stands in for `config.json`, where the tensors are a view.
  private var viewConfig: JSON?

  /// All tensors, in the source's order.
  package var tensors: [TensorInfo] { source.tensors }
  /// Whether the tensors are an adapter's, as PEFT saves it: `adapter_config.json` is with them.
  package var isAdapter: Bool { adapterConfigPath != nil }
  /// How the files are built.
  package var format: Format {
    switch stored {
    case is TorchFile, is ShardedTorch: .torch
    case is GGUFFile: .gguf
    case is PackedFile: .packed
    default: .safetensors
    }
  }
  /// The one file, where it is safetensors.
  package var singleFile: SafetensorsFile? { stored as? SafetensorsFile }
  /// The shards with their index, where they are safetensors.
  package var sharded: ShardedSafetensors? { stored as? ShardedSafetensors }
  /// The shards with their index, where they are PyTorch's.
  package var shardedTorch: ShardedTorch? { stored as? ShardedTorch }
  /// The GGUF model, where it is one, in however many files.
  package var gguf: GGUFFile? { stored as? GGUFFile }

  /// The packed file, where it is one.
  package var packed: PackedFile? { stored as? PackedFile }
  /// Whether files lie with the tensors that are carried along.
  package var hasOtherFiles: Bool { directory != nil || packed != nil }

  /// The tensor of that name, byte for byte.
  package subscript(name: String) -> TensorInfo? {
    places[ExactName(name)].map { source.tensors[$0] }
  }

  /// Opens a file of tensors, an index of shards, or a folder.
  ///
  /// In a folder the first of these counts: `model.safetensors`, `model.safetensors.index.json`,
  /// `pytorch_model.bin`, `pytorch_model.bin.index.json` (the order in which transformers looks),
  /// `adapter_model.safetensors`, `adapter_model.bin`, `adapters.safetensors` (mlx-lm's), the only
  /// `*.safetensors.index.json`, the only
  /// `*.safetensors`, the only `*.bin.index.json`, the only `*.bin`, `*.pt` or `*.pth`,
  /// the only `*.safetensors.zst`, the only GGUF model. With `preferringAdapter` the adapter's three
  /// come first.
  /// - Throws: `io` where nothing is there, `unsupported` for other formats, for a folder without
  ///   tensors and for one with several sets of them, `damaged`, `different`.
  /// - Parameter base: where the base of a packed file of differences is.
  package init(
    opening path: String, preferringAdapter: Bool = false, base: String? = nil
  ) throws(PeftoolError) {
    let found = try CheckpointFile(at: path, preferringAdapter: preferringAdapter)
    self.path = path
    switch found.kind {
    case .file: stored = try openTensorFile(found.file, base: base)
    case .gguf: stored = try GGUFFile(found.file)
    case .sharded:
      let index = try ShardIndex(reading: found.file)
      let shards = try index.openShards()
      // The first tells what all are.
      if let first = shards.first, try FileSignature(of: first) == .torch {
        stored = try ShardedTorch(index, shards: shards)
      } else {
        stored = try ShardedSafetensors(index, shards: shards)
      }
    }
    source = stored
    let packed = stored as? PackedFile
    kind = packed?.contents.index == nil ? found.kind : .sharded

    let folder = Folder.parent(of: found.path)
    adapterConfigPath =
      if let packed { packed.adapterConfigPath(or: found.adapterConfigPath) } else {
        found.adapterConfigPath
      }
    directory = found.directory
    if let packed {
      otherFiles = packed.contents.otherMembers.map(\.name).sorted()
      otherWeights = []
    } else if directory != nil {
      var own: Set<String> = [Folder.name(of: found.path)]
      own.formUnion(source.files.map { Folder.name(of: $0.path) })
      var others: [String] = []
      for name in try Folder.names(in: folder) where !name.hasPrefix(".") && !own.contains(name) {
        // A link that leads nowhere is listed: whoever wants the file hears of it.
        let kind = try FileKind(at: Folder.path(folder, name))
        if kind == .regular || kind == nil { others.append(name) }
      }
      otherFiles = others.filter { !FileSignature.isWeightName($0) }
      otherWeights = others.filter(FileSignature.isWeightName)
    } else {
      otherFiles = []
      otherWeights = []
    }
    findTensors()
  }

  private mutating func findTensors() {
    places.removeAll(keepingCapacity: true)
    places.reserveCapacity(source.tensors.count)
    for (place, tensor) in source.tensors.enumerated() { places[ExactName(tensor.name)] = place }
  }

  /// The same checkpoint with tensors that are computed from its own, and another `config.json`.
  package func viewed(through source: any TensorSource, config: JSON?) -> Checkpoint {
    var view = self
    view.source = source
    view.isView = true
    view.viewConfig = config
    view.findTensors()
    return view
  }

  /// The folder's `config.json`, or a packed file's, read at each call; nil where there is none.
  ///
  /// - Throws: `io`, and `damaged` where it is no JSON.
  package var config: JSON? {
    get throws(PeftoolError) {
      guard hasOtherFiles else { return nil }
      if !isView, let packed { return try packed.json("config.json") }
      return try modelConfig
    }
  }

  /// The `config.json` beside the tensors, also where the path is that of a single file, or of a
  /// packed one without it.
  ///
  /// - Throws: as `config`.
  package var modelConfig: JSON? {
    get throws(PeftoolError) {
      if isView { return viewConfig }
      if let packed, let config = try packed.json("config.json") { return config }
      let path = Folder.path(Folder.parent(of: source.path), "config.json")
      return Folder.exists(path) ? try JSON(opening: path) : nil
    }
  }

  /// The `adapter_config.json`, read at each call; nil where the tensors are no adapter's.
  ///
  /// - Throws: `io`, and `damaged` where it is no JSON.
  package var adapterConfig: JSON? {
    get throws(PeftoolError) {
      guard let adapterConfigPath else { return nil }
      if let json = try packed?.json(Self.adapterConfigName) { return json }
      return try JSON(opening: adapterConfigPath)
    }
  }
}

/// Opens a file of tensors, which is its checkpoint's file number `fileIndex`.
///
/// - Parameter base: where the base of a packed file of differences is.
/// - Throws: `io`, `damaged` and `unsupported`, each with the path.
package func openTensorFile(
  _ file: InputFile, fileIndex: Int = 0, base: String? = nil
) throws(PeftoolError) -> any TensorSource {
  switch try FileSignature(of: file) {
  case .packed where fileIndex == 0: return try PackedFile(file, base: base)
  case .packed:
    throw PeftoolError(
      .unsupported, "is a packed file, expected safetensors in a shard", path: file.path)
  case .torch: return try TorchFile(file, fileIndex: fileIndex)
  case .safetensors, .gguf, .json: return try SafetensorsFile(file, fileIndex: fileIndex)
  case .other(let what):
    throw PeftoolError(.unsupported, "\(what), expected safetensors", path: file.path)
  }
}

/// The file that a path stands for: a file of tensors, an index of shards, or a GGUF model.
package struct CheckpointFile: Sendable {
  /// The open file: what is read of it is what was looked at.
  package let file: InputFile
  /// What it is.
  package let kind: Checkpoint.Kind
  /// The checkpoint's folder, where the path was one or is an index; nil for a single file.
  package private(set) var directory: String?

  /// Looks for it as `Checkpoint` does, and at no more than its first bytes.
  ///
  /// - Throws: `io` and `unsupported`, as `Checkpoint`.
  package init(at path: String, preferringAdapter: Bool = false) throws(PeftoolError) {
    let isFolder = Folder.isFolder(path)
    self =
      try isFolder
      ? CheckpointFile(inFolder: path, preferringAdapter: preferringAdapter)
      : CheckpointFile(file: path)
    // What lay beside the tensors of a packed file is in it.
    let isPacked = try FileSignature(of: file) == .packed
    directory =
      isPacked ? nil : isFolder ? path : kind == .sharded ? Folder.parent(of: self.path) : nil
  }

  /// Where it lies.
  package var path: String { file.path }

  /// The path of `adapter_config.json`, where the tensors are an adapter's.
  package var adapterConfigPath: String? {
    let config = Folder.path(Folder.parent(of: path), Checkpoint.adapterConfigName)
    let name = Folder.name(of: path)
    let isModel = ["model.safetensors", "pytorch_model"].contains(where: name.hasPrefix)
    return !isModel && kind != .gguf && Folder.exists(config) ? config : nil
  }

  /// Looks into the file at a path.
  private init(file path: String) throws(PeftoolError) {
    file = try InputFile(opening: path)
    switch try FileSignature(of: file) {
    case .safetensors, .torch, .packed: kind = .file
    case .gguf: kind = .gguf
    case .json: kind = .sharded
    case .other(let what):
      throw PeftoolError(
        .unsupported,
        "\(what), expected safetensors, packed or not, GGUF, a file of torch.save or an index "
          + "of shards", path: path)
    }
  }

  /// Looks through a folder.
  private init(inFolder folder: String, preferringAdapter: Bool) throws(PeftoolError) {
    let names = try Folder.names(in: folder)
    let model = "model.safetensors"
    let index = "model.safetensors.index.json"
    let adapter = Checkpoint.adapterName
    let models = [model, index, "pytorch_model.bin", "pytorch_model.bin.index.json"]
    let adapters = [adapter, "adapter_model.bin", Checkpoint.mlxAdapterName]
    let known = preferringAdapter ? adapters + models : models + adapters
    if let name = known.first(where: names.contains) {
      try self.init(file: Folder.path(folder, name))
      return
    }
    let visible = names.filter { !$0.hasPrefix(".") }
    let endings = [
      [".safetensors.index.json"], [".safetensors"], [".bin.index.json"], [".bin", ".pt", ".pth"],
      [".safetensors.zst"],
    ]
    for endings in endings {
      let candidates = visible.filter { name in
        endings.contains(where: name.hasSuffix) && !Self.trainerNames.contains(name)
          && !name.hasPrefix("rng_state")
      }
      if candidates.count == 1 {
        try self.init(file: Folder.path(folder, candidates[0]))
        return
      }
      if candidates.count > 1 {
        throw PeftoolError(
          .unsupported,
          "has \(candidates.count) files that end in \(endings.joined(separator: ", ")), "
            + "expected one of them: "
            + Self.list(candidates),
          path: folder)
      }
    }
    if let model = try Self.modelInGGUF(visible, folder: folder) {
      try self.init(file: Folder.path(folder, model))
      return
    }
    let weights = visible.filter(FileSignature.isWeightName)
    guard weights.isEmpty else {
      throw PeftoolError(
        .unsupported,
        "has no tensors but what peftool does not read: \(Self.list(weights))", path: folder)
    }
    throw PeftoolError(
      .unsupported,
      "has no tensors: looked for \(known.joined(separator: ", ")), one *.safetensors, one *.bin, "
        + "*.pt or *.pth and one *.gguf",
      path: folder)
  }

  /// The name of the folder's only GGUF model; of one in several files that of the first.
  private static func modelInGGUF(
    _ names: [String], folder: String
  ) throws(PeftoolError) -> String? {
    let models = names.filter { name in
      name.hasSuffix(".gguf")
        && (name.firstMatch(of: /-[0-9]{5}-of-[0-9]{5}\.gguf$/) == nil
          || name.firstMatch(of: /-00001-of-[0-9]{5}\.gguf$/) != nil)
    }
    guard models.count < 2 else {
      throw PeftoolError(
        .unsupported, "has \(models.count) GGUF models, expected one of them: \(list(models))",
        path: folder)
    }
    return models.first
  }

  /// What a trainer saves beside a model, in pickles that hold no model.
  private static let trainerNames: Set = ["training_args.bin", "optimizer.pt", "scheduler.pt"]

  /// The first five names, and how many more there are.
  private static func list(_ names: [String]) -> String {
    let shown = names.prefix(5).map(\.printable).joined(separator: ", ")
    return names.count > 5 ? "\(shown) and \(names.count - 5) more" : shown
  }
}
