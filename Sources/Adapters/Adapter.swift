package import Checkpoints
package import Files
import JSON
package import Tensors

/// An adapter as PEFT saves it: its configuration, and its tensors by module.
///
/// Only headers and the configuration are read.
package struct Adapter: Sendable {
  /// The path that the user gave.
  package let path: String
  /// Its tensors, and the files beside them.
  package let checkpoint: Checkpoint
  /// What `adapter_config.json` says.
  package let configuration: AdapterConfiguration
  /// The modules that it changes, in the order of the file, an entry a depth of nesting.
  package let modules: [Module]
  /// Tensors of no use for the merged weights.
  package let ignored: [TensorInfo]

  /// What an adapter holds for one module.
  package struct Module: Sendable {
    /// The module's path, without `base_model.model.`.
    package let path: String
    /// The number of wrappers around this one's parameter; 0 but for `target_parameters` and for
    /// own values of a wrapped module.
    package let depth: Int
    /// The adapter's tensors by what they are for.
    package fileprivate(set) var parts: [AdapterKey.Part: TensorInfo]
  }

  /// A change of the names in a file, for an adapter that was trained inside another module.
  package struct Renaming: Equatable, Sendable {
    /// The beginning to take off.
    package let from: String
    /// The beginning to put in its place.
    package let to: String

    package init(from: String, to: String) {
      self.from = from
      self.to = to
    }
  }

  /// The configuration's file name.
  package static let configurationName = Checkpoint.adapterConfigName

  /// Opens an adapter's folder, or its file of tensors beside its configuration.
  ///
  /// In a folder without a configuration the only sub-folder that has one is taken: PEFT saves
  /// adapters that are not called `default` so.
  /// - Throws: `io`, `damaged`, `unsupported`, each with its path.
  package init(opening path: String, renaming: [Renaming] = []) throws(PeftoolError) {
    let folder = try Self.folder(of: path)
    let checkpoint = try Checkpoint(opening: folder, preferringAdapter: true)
    if let format = try AdapterFormat(of: checkpoint), format != .peft {
      throw format.refusal(path: path)
    }
    guard let json = try checkpoint.adapterConfig, let place = checkpoint.adapterConfigPath else {
      throw PeftoolError(
        .unsupported, "has no \(Self.configurationName) beside its tensors: no adapter", path: path)
    }
    do throws(PeftoolError) {
      configuration = try AdapterConfiguration(json)
    } catch {
      throw error.at(path: place)
    }
    self.path = path
    self.checkpoint = checkpoint
    (modules, ignored) = try Self.modules(of: checkpoint, renaming: renaming)
  }

  /// One of its tensors, ready to be read.
  package func stored(_ info: TensorInfo) -> StoredTensor {
    StoredTensor(info, in: checkpoint.source)
  }

  /// The parameters of its own, without those of no use.
  package var parameterCount: Int {
    modules.reduce(0) { $0 + $1.parts.values.reduce(0) { $0 + $1.elementCount } }
  }

  /// What the user should know of the tensors that are of no use: no more than one sentence.
  ///
  /// - Parameter purpose: for what they are of no use.
  package func ignored(for purpose: String) -> [String] {
    guard let first = ignored.first else { return [] }
    let others = ignored.count > 1 ? " and \(ignored.count - 1) more" : ""
    return [
      "\(path.printable): of no use for \(purpose), left out: \(first.name.printable)\(others)"
    ]
  }

  /// The folder that an adapter's path stands for: itself, or its only sub-folder with an adapter.
  static func folder(of path: String) throws(PeftoolError) -> String {
    guard Folder.isFolder(path), !Folder.exists(Folder.path(path, configurationName)) else {
      return path
    }
    let candidates = try Folder.names(in: path).map { Folder.path(path, $0) }.filter {
      Folder.isFolder($0) && Folder.exists(Folder.path($0, configurationName))
    }
    guard candidates.count < 2 else {
      let names = candidates.prefix(5).map { Folder.name(of: $0).printable }
      throw PeftoolError(
        .unsupported,
        "has \(candidates.count) adapters in sub-folders, name one: "
          + names.joined(separator: ", "),
        path: path)
    }
    if let only = candidates.first, Folder.name(of: only).hasPrefix("checkpoint-") {
      throw PeftoolError(
        .unsupported,
        "has a checkpoint of training and no adapter, which comes when training ends; "
          + "\(only.printable) is what there is so far", path: path)
    }
    return candidates.first ?? path
  }

  /// Whether a tensor is one of PEFT's own copies of a saved module's values: with
  /// `save_embedding_layers` it writes those into the file, too.
  private static func isCopy(_ name: String, among names: Set<ExactName>) -> Bool {
    [".modules_to_save.", ".original_module."].contains {
      guard name.contains($0) else { return false }
      let plain = name.replacing($0, with: ".")
      return plain != name && names.contains(ExactName(plain))
    }
  }

  private static func modules(
    of checkpoint: Checkpoint, renaming: [Renaming]
  ) throws(PeftoolError) -> ([Module], [TensorInfo]) {
    var modules: [Module] = []
    var places: [ExactName: Int] = [:]
    var ignored: [TensorInfo] = []
    let names = Set(checkpoint.tensors.map { ExactName($0.name) })
    for tensor in checkpoint.tensors {
      guard !isCopy(tensor.name, among: names) else {
        ignored.append(tensor)
        continue
      }
      let stored = StoredTensor(tensor, in: checkpoint.source)
      let rule = renaming.first { tensor.name.hasPrefix($0.from) }
      let name = rule.map { $0.to + tensor.name.dropFirst($0.from.count) } ?? tensor.name
      guard let key = AdapterKey(name) else {
        throw stored.at(
          PeftoolError(
            .unsupported,
            "is no key of PEFT's, expected \(AdapterKey.prefix)MODULE.lora_A.weight and the like; "
              + "'peftool merge' maps another prefix with --key-prefix FROM=TO"))
      }
      guard key.part != .ignored else {
        ignored.append(tensor)
        continue
      }
      guard key.part.allows(tensor.dtype) else {
        throw stored.at(
          PeftoolError(
            .unsupported, "is \(tensor.dtype.rawValue), expected \(key.part.dtypesText)"))
      }
      // No module's path holds a NUL, so that the pair has one spelling.
      let id = ExactName("\(key.module)\0\(key.depth)")
      let place = places[id] ?? modules.count
      if place == modules.count {
        places[id] = place
        modules.append(Module(path: key.module, depth: key.depth, parts: [:]))
      }
      if let other = modules[place].parts.updateValue(tensor, forKey: key.part) {
        throw stored.at(
          PeftoolError(.damaged, "means the same as '\(other.name.printable)'"))
      }
    }
    guard !modules.isEmpty else {
      throw PeftoolError(.damaged, "an adapter without tensors", path: checkpoint.source.path)
    }
    return (modules, ignored)
  }
}
