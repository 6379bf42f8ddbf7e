import Adapters
import Checkpoints
import Files
import JSON
import Models
import Tensors

/// The model that is planned for: what its `config.json` says, and if its tensors are there, their type.
struct PlannedBase {
  /// The folder.
  let path: String
  let configuration: LlamaConfiguration
  /// The type of what is not in codes.
  let dtype: DType
  /// How its layers' matrices lie.
  let form: ModelSize.Form
  /// What comes of QA-LoRA on it, or where it is in numbers, on its codes.
  let pooling: Pooling

  /// What comes of QA-LoRA on a base, by the groups that there are.
  enum Pooling: Equatable {
    /// It is merged into the groups' offsets.
    case merged
    /// It stays beside the base, which has zero points, or is merged into offsets made of these.
    case beside
    /// It cannot be trained, and why: what follows the base's name.
    case impossible(String)
  }

  /// Reads a model's folder, or a `config.json`; no weight is read.
  ///
  /// - Throws: `io`; `unsupported` for an adapter; `damaged` and `unsupported` as
  ///   `LlamaConfiguration`, with the path.
  init(opening path: String) throws(PeftoolError) {
    let isFolder = Folder.isFolder(path)
    self.path = isFolder ? Folder.trimmed(path) : Folder.parent(of: path)
    let file = isFolder ? Folder.path(path, Self.configName) : path
    guard Folder.exists(path) else {
      throw PeftoolError(.io, "is not there, expected a model's folder", path: path)
    }
    guard isFolder || Folder.name(of: path).hasSuffix(".json") else {
      throw PeftoolError(
        .unsupported, "is a file, expected a model's folder or its config.json", path: path)
    }
    if isFolder, Folder.exists(Folder.path(path, Checkpoint.adapterConfigName)) {
      throw PeftoolError(.unsupported, "is an adapter, expected a model", path: path)
    }
    guard Folder.exists(file) else {
      throw PeftoolError(.io, "is not there, which tells what model it is", path: file)
    }
    let config = try JSON(opening: file)
    do throws(PeftoolError) {
      configuration = try LlamaConfiguration(config)
      try configuration.checkSize()
      let groups = try Int4Settings(config)
      form = groups.map { .groups(size: $0.groupSize) } ?? Self.form(config)
      pooling = try Self.pooling(configuration, form, groups)
    } catch {
      throw error.at(path: file)
    }
    dtype = try Self.storedType(self.path, isFolder: isFolder) ?? BaseModel.dtype(config) ?? .bf16
  }

  private static let configName = "config.json"

  /// The type of the embedding, where the folder has tensors.
  private static func storedType(
    _ path: String, isFolder: Bool
  ) throws(PeftoolError) -> DType? {
    let endings = ModelOutput.Destination.endings + [".index.json"]
    guard isFolder,
      try Folder.names(in: path).contains(where: { endings.contains(where: $0.hasSuffix) })
    else { return nil }
    let dtype = try Checkpoint(opening: path)[TrainedWeights.embedding + ".weight"]?.dtype
    return dtype.flatMap { $0.bitCount % 8 == 0 ? $0 : nil }
  }

  /// How layers lie that are in no groups, as the configuration has it.
  private static func form(_ config: JSON) -> ModelSize.Form {
    guard let settings = config["quantization_config"], settings != .null else { return .numbers }
    return settings["load_in_8bit"] == .bool(true) ? .int8 : .nf4
  }

  /// What comes of QA-LoRA, of whose groups `finetune` asks the same.
  ///
  /// - Throws: as `Int4Settings.groupSize(of:)`.
  private static func pooling(
    _ configuration: LlamaConfiguration, _ form: ModelSize.Form, _ settings: Int4Settings?
  ) throws(PeftoolError) -> Pooling {
    let coded = form == .numbers ? PlannedMethod.Coding.int4.form : form
    guard case .groups(let size) = coded else {
      return .impossible(
        "is quantized, but not to INT4 by groups; 'peftool dequantize' decodes it")
    }
    if settings?.isReordered == true {
      return .impossible("has inputs in groups of any order (desc_act), which have no mean")
    }
    var sizes: Set<Int> = []
    for place in 0..<configuration.layerCount {
      for layer in configuration.linearGroups.joined() {
        let module = "model.layers.\(place).\(layer.module)"
        let own = if let settings { try settings.groupSize(of: module) } else { size }
        guard layer.inputs % (own ?? layer.inputs) == 0 else {
          return .impossible(
            "has layers of \(layer.inputs) inputs, which groups of \(own ?? 0) do not divide")
        }
        sizes.insert(own ?? layer.inputs)
      }
    }
    guard sizes.count == 1 else {
      return .impossible("has groups of several sizes, and QA-LoRA has one size for all layers")
    }
    return settings.map { $0.layout == .mlx } ?? true ? .merged : .beside
  }
}
