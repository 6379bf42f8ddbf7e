import Adapters
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Reports
import Tensors

/// All that is wrong with a checkpoint.
///
/// Peak memory: the headers, and 1.5 MB a thread; of a packed file also what `PackedFile` says.
struct Verification: Sendable {
  /// The path that the user gave.
  let path: String
  /// Whether the tensors are an adapter's.
  private(set) var isAdapter = false
  /// What is wrong, file by file.
  private(set) var faults: [PeftoolError] = []
  /// What a user may want to know, though nothing is wrong with it.
  private(set) var notes: [String] = []
  /// What was looked at, for a reader.
  private(set) var checked: [String] = []
  /// The tensors of all files that could be opened.
  private(set) var tensorCount = 0
  private(set) var byteCount = 0

  /// Looks for all faults; with a base, also whether an adapter fits it.
  ///
  /// - Throws: `io` and `unsupported` where the path holds nothing that can be verified, `different`
  ///   where a file is written to meanwhile, and whatever is wrong with the base.
  init(_ path: String, base: String?, threads: Int, isQuiet: Bool = false) throws(PeftoolError) {
    let file = try CheckpointFile(at: path)
    self.path = path
    let source: SoundFiles
    switch file.kind {
    case .file: source = try openFile(file.path)
    case .sharded: source = try openShards(file.path)
    case .gguf: source = openGGUF(file.file)
    }
    let configPath =
      if let packed = source.packed {
        packed.adapterConfigPath(or: file.adapterConfigPath)
      } else {
        file.adapterConfigPath
      }
    let isForeign = configPath == nil ? try isKohya(file) : false
    isAdapter = configPath != nil || isForeign
    guard isAdapter || base == nil else {
      throw PeftoolError(
        .unsupported,
        "is no adapter of PEFT, mlx-lm or kohya (no adapter_config.json, no names of kohya's), and "
          + "--base is for adapters", path: path)
    }
    tensorCount = source.tensors.count
    byteCount = source.tensors.reduce(0) { $0 + $1.byteCount }
    checked.append("\(tensorCount.text(of: "tensor")) of \(byteCount.byteText)")
    if let config = configPath {
      try checkAdapter(source, configPath: config, base: base)
    } else if isForeign {
      try checkForeignAdapter(base: base)
    } else {
      checkNoAdapter(source, file)
      checkModel(source, file)
    }
    try checkValues(source, threads: threads, isQuiet: isQuiet)
    try noteNeighbours(file, source)
    try source.reader.verifyUnchanged()
  }

  // MARK: Files

  private mutating func openFile(_ path: String) throws(PeftoolError) -> SoundFiles {
    // What cannot be opened at all is no fault of its content.
    let input = try InputFile(opening: path)
    var source = SoundFiles(path: path)
    do throws(PeftoolError) {
      source.append(try openTensorFile(input))
      if let packed = source.packed { try compareIndex(of: packed) }
    } catch {
      faults.append(error)
    }
    return source
  }

  private mutating func compareIndex(of packed: PackedFile) throws(PeftoolError) {
    guard let index = try packed.index else { return }
    checked.append("\(index.shardNames.count.text(of: "shard")) and their index")
    let names = packed.contents.tensorMembers.map(\.name)
    let known = Set(names.map(ExactName.init))
    for name in index.shardNames where !known.contains(ExactName(name)) {
      faults.append(
        PeftoolError(
          .different, "is not there; the index puts tensors into this shard",
          path: Folder.path(packed.path, name)))
    }
    compare(index, with: packed.tensors, in: names, of: packed.path)
  }

  private mutating func openShards(_ path: String) throws(PeftoolError) -> SoundFiles {
    var source = SoundFiles(path: path)
    let folder = Folder.parent(of: path)
    let index: ShardIndex
    do throws(PeftoolError) {
      index = try ShardIndex(reading: InputFile(opening: path))
    } catch {
      guard error.kind != .io else { throw error }
      faults.append(error)
      // Without an index the shards may still be looked at, each for itself.
      for name in try Folder.names(in: folder) where name.hasSuffix(".safetensors") {
        openShard(Folder.path(folder, name), tensorCount: nil, into: &source)
      }
      return source
    }
    var tensorCounts = Array(repeating: 0, count: index.shardNames.count)
    for shard in index.shardByTensor.values { tensorCounts[shard] += 1 }
    for (name, count) in zip(index.shardNames, tensorCounts) {
      openShard(Folder.path(folder, name), tensorCount: count, into: &source)
    }
    checked.append("\(index.shardNames.count.text(of: "shard")) and their index")
    compare(
      index, with: source.tensors, in: source.files.map { Folder.name(of: $0.path) }, of: folder)
    return source
  }

  private mutating func openGGUF(_ input: InputFile) -> SoundFiles {
    var source = SoundFiles(path: input.path)
    do throws(PeftoolError) {
      let model = try GGUFFile(input)
      source.append(model)
      if model.files.count > 1 { checked.append(model.files.count.text(of: "file")) }
      faults += GGUFExpectations(model).faults
    } catch {
      faults.append(error)
    }
    return source
  }

  private mutating func openShard(
    _ path: String, tensorCount: Int?, into source: inout SoundFiles
  ) {
    do throws(PeftoolError) {
      let input: InputFile
      do throws(PeftoolError) {
        input = try InputFile(opening: path)
      } catch {
        let wanted = tensorCount.map { "; the index puts \($0.text(of: "tensor")) into it" } ?? ""
        throw PeftoolError(error.kind, error.reason + wanted, path: path)
      }
      source.append(try openTensorFile(input, fileIndex: source.files.count))
    } catch {
      faults.append(error)
    }
  }

  /// Compares the index with the tensors of the shards that could be opened, by their names.
  private mutating func compare(
    _ index: ShardIndex, with tensors: [TensorInfo], in names: [String], of folder: String
  ) {
    var found: [ExactName: Int] = [:]
    for tensor in tensors {
      let name = ExactName(tensor.name)
      let shard = names[tensor.fileIndex]
      func add(_ kind: PeftoolError.Kind, _ reason: String) {
        faults.append(
          PeftoolError(kind, reason, tensor: tensor.name, path: Folder.path(folder, shard)))
      }
      if let other = found.updateValue(tensor.fileIndex, forKey: name) {
        add(.damaged, "stands in this shard and in \(names[other].printable)")
      } else if let expected = index.shardByTensor[name].map({ index.shardNames[$0] }) {
        if expected != shard {
          add(.different, "is in this shard, the index has it in \(expected.printable)")
        }
      } else {
        add(.different, "is in this shard, but not in the index")
      }
    }
    let known = Set(names.map(ExactName.init))
    let isKnown = index.shardNames.map { known.contains(ExactName($0)) }
    let missing = index.shardByTensor.filter { found[$0.key] == nil && isKnown[$0.value] }
    for (name, shard) in missing.sorted(by: { $0.key.string.precedesByBytes($1.key.string) }) {
      faults.append(
        PeftoolError(
          .different, "the index has it in this shard, which has no such tensor",
          tensor: name.string, path: Folder.path(folder, index.shardNames[shard])))
    }
  }

  // MARK: Configuration

  private mutating func checkModel(_ source: SoundFiles, _ file: CheckpointFile) {
    let path = Folder.path(file.directory ?? file.path, "config.json")
    do throws(PeftoolError) {
      let found =
        if let packed = source.packed { try packed.json("config.json") } else {
          file.directory != nil && Folder.exists(path) ? try JSON(opening: path) : nil
        }
      if let found {
        guard case .object = found else { throw found.unfit("the configuration", "an object") }
        checked.append("config.json")
      }
      // Tensors that a damaged file hides would look as if they were missing.
      guard faults.isEmpty, file.kind != .gguf else { return }
      if let found {
        for fault in ModelExpectations(found).faults(in: source.tensors) {
          faults.append(fault.at(path: path))
        }
      }
      let quantization = try QuantizationExpectations(Checkpoint(opening: self.path), found)
      faults += quantization.faults
      if let fault = quantization.contradiction { faults.append(fault.at(path: path)) }
      if quantization.weightCount > 0 {
        checked.append("\(quantization.weightCount.text(of: "quantized weight"))")
      }
    } catch {
      faults.append(error.at(path: path))
    }
  }

  /// An adapter's tensors without their configuration mean nothing.
  private mutating func checkNoAdapter(_ source: SoundFiles, _ file: CheckpointFile) {
    guard Folder.name(of: file.path).hasPrefix("adapter_model.") else { return }
    faults.append(
      PeftoolError(
        .different, "has no \(Adapter.configurationName) beside it", path: file.path))
  }

  private mutating func checkAdapter(
    _ source: SoundFiles, configPath: String, base: String?
  ) throws(PeftoolError) {
    let json: JSON
    do throws(PeftoolError) {
      let packed = try source.packed?.json(Checkpoint.adapterConfigName)
      json = if let packed { packed } else { try JSON(opening: configPath) }
    } catch {
      faults.append(error.at(path: configPath))
      return
    }
    guard !AdapterFormat.mlx.isConfiguration(json) else {
      checked.append(Adapter.configurationName)
      return try checkForeignAdapter(base: base)
    }
    let configuration: AdapterConfiguration
    do throws(PeftoolError) {
      configuration = try AdapterConfiguration(json)
      checked.append(Adapter.configurationName)
      guard faults.isEmpty else { return }
      let audit = AdapterAudit(configuration, json, source.tensors)
      faults += audit.faults.map { $0.at(path: source.path) }
      notes += audit.notes
    } catch {
      let error = error.at(path: configPath)
      if error.kind == .unsupported, base == nil {
        notes.append("tensors not compared with the configuration: \(error.reason)")
      } else {
        faults.append(error)
      }
      return
    }
    if let base { try checkFit(configuration, base: base) }
  }

  /// Whether a file without a configuration is an adapter, as its names tell.
  private func isKohya(_ file: CheckpointFile) throws(PeftoolError) -> Bool {
    guard case .file = file.kind, faults.isEmpty else { return false }
    return try AdapterFormat(of: Checkpoint(opening: path)) == .kohya
  }

  /// Whether `convert` takes an adapter of mlx-lm or kohya, with a base also whether that has its
  /// modules.
  private mutating func checkForeignAdapter(base: String?) throws(PeftoolError) {
    // Headers that cannot be read hide what the pairs lack.
    guard faults.isEmpty else { return }
    let model: BaseModel? =
      if let base { try BaseModel(Checkpoint(opening: base).adaptable) } else { nil }
    do throws(PeftoolError) {
      let read = try AdapterFormat.read(path, AdapterFormat.Hints(base: model, prefix: nil))
      let modules = read.adapter.modules.count.text(of: "module")
      checked.append(modules + (base.map { " of \($0.printable)" } ?? ""))
    } catch {
      // What the base would tell, or another format lacks, is no fault of the file.
      if error.kind == .unsupported {
        notes.append("modules not checked: \(error.reason)")
      } else {
        faults.append(error)
      }
    }
  }

  /// Whether every module of the adapter is found in the base and fits it.
  private mutating func checkFit(
    _ configuration: AdapterConfiguration, base path: String
  ) throws(PeftoolError) {
    let checkpoint = try Checkpoint(opening: path)
    let adapter: Adapter
    do throws(PeftoolError) {
      adapter = try Adapter(opening: self.path)
    } catch {
      // The first of the names or dtypes that are told of above, in other words.
      let isKnown = faults.contains { $0.tensor != nil && $0.tensor == error.tensor }
      if !isKnown { faults.append(error) }
      notes.append("not compared with \(path.printable): the adapter's own faults come first")
      return
    }
    do throws(PeftoolError) {
      let base = try BaseModel(checkpoint.adaptable, replication: configuration.layerReplication)
      // A module that lacks a part has been told of without the base.
      let known = Set(faults.compactMap(\.tensor).compactMap(AdapterKey.init).map(\.module))
      let result = ChangeResolver(adapter, base: base).resolve()
      for fault in result.faults {
        if let key = fault.tensor.flatMap(AdapterKey.init), known.contains(key.module) { continue }
        faults.append(fault)
      }
      checked.append("\(adapter.modules.count.text(of: "module")) of \(path.printable)")
    } catch {
      guard error.kind == .different else { throw error }
      faults.append(error)
    }
  }

  // MARK: Values

  private mutating func checkValues(_ source: SoundFiles, threads: Int, isQuiet: Bool)
    throws(PeftoolError)
  {
    let tensors = source.tensors
    let (packed, isBaseThere) = (source.packed, openBase(of: source.packed))
    // Differences are no numbers without their base.
    func isRead(_ tensor: TensorInfo) -> Bool {
      tensor.dtype.hasNonfinite && (isBaseThere || packed?.needsBase(for: tensor) != true)
    }
    let progress = ProgressLine(
      "verifying", totalByteCount: tensors.reduce(0) { $0 + (isRead($1) ? $1.byteCount : 0) },
      isQuiet: isQuiet)
    let found = try nonfiniteElements(
      of: source.reader, where: isRead, threads: threads, progress: progress)
    progress.finish()
    for (tensor, elements) in zip(tensors, found) {
      let path = source.files[tensor.fileIndex].path
      if elements.count > 0 {
        faults.append(
          PeftoolError(
            .damaged, elements.reason(in: tensor), tensor: tensor.name, path: path))
      }
      if let failure = elements.failure { faults.append(failure.at(path: path)) }
    }
    if faults.isEmpty { checked.append("every number finite") }
    if let packed {
      faults += try packed.faults(
        in: packed.contents.pieces.filter { !($0.tensor.map(isRead) ?? false) },
        needsBase: isBaseThere, threads: threads)
      if faults.isEmpty { checked.append("every checksum") }
    }
  }

  /// Opens the base of differences, if any; one that cannot be opened is one fault, for all blocks.
  private mutating func openBase(of packed: PackedFile?) -> Bool {
    do throws(PeftoolError) {
      _ = try packed?.base?.checkpoint()
      return true
    } catch {
      faults.append(error)
      return false
    }
  }

  /// Weights in the folder that are no part of the checkpoint.
  private mutating func noteNeighbours(
    _ file: CheckpointFile, _ source: SoundFiles
  ) throws(PeftoolError) {
    guard let folder = file.directory else { return }
    var own = Set(source.files.map { Folder.name(of: $0.path) })
    own.insert(Folder.name(of: file.path))
    own.formUnion(faults.compactMap(\.path).map(Folder.name))
    for name in try Folder.names(in: folder)
    where !name.hasPrefix(".") && !own.contains(name) && FileSignature.isWeightName(name) {
      notes.append("not verified: \(name.printable), which is no part of this checkpoint")
    }
  }
}

/// The files of a checkpoint that could be opened.
private struct SoundFiles: TensorSource {
  let path: String
  /// The one file, where it is packed.
  private(set) var packed: PackedFile?
  /// Who reads the tensors: not their bytes as they lie, where they are packed.
  var reader: any TensorSource { if let packed { packed } else { self } }
  private(set) var files: [InputFile] = []
  private(set) var tensors: [TensorInfo] = []
  let metadata: [(key: String, value: String)] = []

  init(path: String) { self.path = path }

  mutating func append(_ file: any TensorSource) {
    packed = file as? PackedFile
    files += file.files
    tensors += file.tensors
  }
}
