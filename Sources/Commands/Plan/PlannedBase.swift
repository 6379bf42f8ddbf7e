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

  /// Reads a model's folder, or a `config.json`; no weight is read.
  ///
  /// - Throws: `io`; `damaged` and `unsupported` as `LlamaConfiguration`, with the path.
  init(opening path: String) throws(PeftoolError) {
    let isFolder = Folder.isFolder(path)
    self.path = isFolder ? Folder.trimmed(path) : Folder.parent(of: path)
    let file = isFolder ? Folder.path(path, Self.configName) : path
    guard isFolder || Folder.name(of: path).hasSuffix(".json") else {
      throw PeftoolError(
        .unsupported, "is a file, expected a model's folder or its config.json", path: path)
    }
    guard Folder.exists(file) else {
      throw PeftoolError(.io, "is not there, which tells what model it is", path: file)
    }
    let config = try JSON(opening: file)
    do throws(PeftoolError) {
      configuration = try LlamaConfiguration(config)
      try configuration.checkSize()
      form = try Self.form(config)
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

  /// How the layers lie, as the configuration has it.
  ///
  /// - Throws: as `Int4Settings`; `damaged`.
  private static func form(_ config: JSON) throws(PeftoolError) -> ModelSize.Form {
    if let settings = try Int4Settings(config) { return .groups(size: settings.groupSize) }
    guard let settings = config["quantization_config"], settings != .null else { return .numbers }
    return settings["load_in_8bit"] == .bool(true) ? .int8 : .nf4
  }
}
