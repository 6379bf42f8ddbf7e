import Adapters
import Checkpoints
import Files
import Models

/// An adapter with the name that prompts call it by.
struct NamedAdapter {
  let name: String
  let path: String

  /// Reads NAME=PATH, or a path, whose last part is the name; a path with = in it is one that is there,
  /// or has / before it, as no name has.
  init(_ argument: String) {
    let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    if parts.count == 2, !parts[0].contains("/"), !Folder.exists(argument) {
      (name, path) = (String(parts[0]), String(parts[1]))
    } else {
      (name, path) = (Folder.name(of: argument), argument)
    }
  }

  /// What is wrong with the names of several; nil where nothing is.
  static func fault(in adapters: [NamedAdapter]) -> String? {
    var known: Set<String> = []
    for adapter in adapters {
      guard !adapter.name.isEmpty else {
        return "--adapter '=\(adapter.path.printable)' has no name before ="
      }
      guard known.insert(adapter.name).inserted else {
        return "two adapters are called '\(adapter.name.printable)'; --adapter NAME=PATH gives one "
          + "another name"
      }
    }
    return nil
  }
}

/// A model by itself and with each of some adapters, whose weights are in memory once.
struct AdapterChoice {
  /// The model by itself.
  let base: LanguageModel
  /// The model with each adapter, in the order given.
  let adapted: [(name: String, language: LanguageModel)]

  /// Opens all, what is small first.
  ///
  /// - Throws: as `LanguageModel`.
  init(
    opening path: String, _ adapters: [NamedAdapter], _ options: ModelOptions
  ) throws(PeftoolError) {
    let files = try ModelFiles(opening: path)
    var opened: [Adapter] = []
    for adapter in adapters { opened.append(try options.openAdapter(adapter.path)) }
    try files.checkRoom(for: opened)
    let shared = SharedTensors()
    base = try LanguageModel(files, [], weights: [], sharing: shared)
    var adapted: [(name: String, language: LanguageModel)] = []
    for (place, adapter) in opened.enumerated() {
      let weight = options.weights?.values[place] ?? 1
      let language = try LanguageModel(files, [adapter], weights: [weight], sharing: shared)
      adapted.append((adapters[place].name, language))
    }
    try files.checkpoint.source.verifyUnchanged()
    self.adapted = adapted
  }

  /// The model with the adapter of a name; by itself without one.
  ///
  /// - Throws: `different` for a name that no adapter has.
  func language(_ name: String?) throws(PeftoolError) -> LanguageModel {
    guard let name else { return base }
    if let found = adapted.first(where: { $0.name == name }) { return found.language }
    throw PeftoolError(
      .different,
      "adapter is \"\(name.printable)\", expected "
        + (adapted.map { "\"\($0.name.printable)\"" } + ["null"]).joined(separator: ", "))
  }

  /// What the user should know: one sentence each.
  var notes: [String] {
    adapted.flatMap { name, language in language.notes.map { "\(name.printable): \($0)" } }
  }
}
