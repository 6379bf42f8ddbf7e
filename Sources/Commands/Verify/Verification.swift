import Adapters
import Checkpoints
import Files
import JSON
import Reports
import Tensors

/// All that is wrong with a checkpoint.
///
/// Peak memory: the headers, and 1.5 MB a thread; of a packed file also what `PackedFile` says.
struct Verification: Sendable {
  /// The path that the user gave.
  let path: String
  /// Whether the tensors are an adapter's.
  var isAdapter = false
  /// What is wrong, file by file.
  var faults: [PeftoolError] = []
  /// What a user may want to know, though nothing is wrong with it.
  var notes: [String] = []
  /// What was looked at, for a reader.
  var checked: [String] = []
  /// The tensors of all files that could be opened.
  var tensorCount = 0
  var byteCount = 0

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

  mutating func checkModel(_ source: SoundFiles, _ file: CheckpointFile) {
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
      let quantization = try QuantizationExpectations(Checkpoint(opening: self.path), found)
      if let found {
        for fault in ModelExpectations(found).faults(in: quantization.decoded(source.tensors)) {
          faults.append(fault.at(path: path))
        }
      }
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
  mutating func checkNoAdapter(_ source: SoundFiles, _ file: CheckpointFile) {
    guard Folder.name(of: file.path).hasPrefix("adapter_model.") else { return }
    faults.append(
      PeftoolError(
        .different, "has no \(Adapter.configurationName) beside it", path: file.path))
  }

  /// Weights in the folder that are no part of the checkpoint.
  mutating func noteNeighbours(
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
