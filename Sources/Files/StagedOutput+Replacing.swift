// What `--force` may replace: an output of the kind that is written. With a folder goes all that
// lies in it, and peftool writes no folder into one.
extension StagedOutput {
  /// Refuses what is there without `force`, and with it whatever does not look like such an output.
  ///
  /// A file replaces a file. A folder of a model replaces one that holds a model, and a folder of an
  /// adapter one that holds an adapter, without folders in them; both replace an empty one.
  /// - Throws: `io`.
  static func checkReplaceable(
    _ path: String, kind: Kind, force: Bool
  ) throws(PeftoolError) {
    var found = try FileKind(at: path)
    // A link that leads nowhere is in the way, too.
    if found == nil { found = try FileKind(at: path, followingLinks: false) }
    guard let found else { return }
    guard force else {
      throw PeftoolError(.io, "exists already; --force replaces it", path: path)
    }
    switch (kind, found) {
    case (.file, .regular): return
    case (.file, _):
      throw PeftoolError(.io, "is no regular file; --force replaces only a file", path: path)
    case (_, .directory):
      guard let reason = try obstacle(to: kind, in: path) else { return }
      throw PeftoolError(
        .io,
        "holds \(reason), which --force would delete: choose another output or remove it",
        path: path)
    default:
      throw PeftoolError(.io, "is no folder; --force replaces a folder with a folder", path: path)
    }
  }

  /// What lies in a folder that no output of a kind has; nil where it is empty or such an output.
  private static func obstacle(to kind: Kind, in path: String) throws(PeftoolError) -> String? {
    let names = try Folder.names(in: path)
    // Of a link to a folder only the link goes.
    for name in names
    where try FileKind(at: Folder.path(path, name), followingLinks: false) == .directory {
      return "the folder \(name.printable)"
    }
    let ofAdapter = names.first(where: Kind.isOfAdapter)
    if kind == .adapterFolder {
      if let weights = names.first(where: Kind.isWeightsOfModel) {
        return "a model, \(weights.printable)"
      }
      return ofAdapter == nil ? names.first?.printable : nil
    }
    if let ofAdapter { return "an adapter, \(ofAdapter.printable)" }
    let isModel = names.contains { $0 == "config.json" || Kind.isWeightsOfModel($0) }
    return isModel ? nil : names.first?.printable
  }
}

extension StagedOutput.Kind {
  /// The folder of files with some names: an adapter's where one of them is.
  package init(folderOf names: [String]) {
    self = names.contains(where: Self.isOfAdapter) ? .adapterFolder : .modelFolder
  }

  /// Whether a file is named as PEFT, mlx-lm or peftool name those of an adapter.
  fileprivate static func isOfAdapter(_ name: String) -> Bool {
    name == "adapter_config.json" || name.hasPrefix("adapter_model.")
      || name.hasPrefix("adapter_model-") || name.hasSuffix("adapters.safetensors")
  }

  /// Whether a file is named as weights of a model.
  fileprivate static func isWeightsOfModel(_ name: String) -> Bool {
    !isOfAdapter(name)
      && (name.hasSuffix(".safetensors") || name.hasSuffix(".gguf")
        || name.hasPrefix("pytorch_model"))
  }
}
