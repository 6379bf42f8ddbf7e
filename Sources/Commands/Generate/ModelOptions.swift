import Adapters
import ArgumentParser
import Files
import LinearAlgebra

/// What every verb takes that runs a model.
struct ModelOptions: ParsableArguments {
  @Option(
    name: .customLong("adapter"),
    help: ArgumentHelp(
      "An adapter to be applied beside the weights; repeatable. generate --swap takes NAME=PATH, too.",
      valueName: "adapter"),
    completion: .file())
  var adapters: [String] = []

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "A factor for each adapter's whole change, such as 0.7,-0.5.", valueName: "numbers"))
  var weights: Weights?

  @Option(
    help: ArgumentHelp(
      "Read adapter keys that begin with FROM as if they began with TO; repeatable.",
      valueName: "from=to"))
  var keyPrefix: [KeyPrefix] = []

  @Option(
    help: ArgumentHelp("The number of threads; the result does not depend on it.", valueName: "n"))
  var threads: Int?

  @Flag(help: "No notes.")
  var quiet = false

  @Flag(help: "Print one JSON object instead.")
  var json = false

  func validate() throws {
    if let weights {
      guard !adapters.isEmpty else { throw ValidationError("--weights goes with --adapter") }
      try weights.validate(count: adapters.count)
    }
    if let threads { try RunOptions.validate(threads: threads) }
  }

  /// The threads that compute.
  var team: ThreadTeam { ThreadTeam(count: threads ?? availableProcessorCount) }

  /// Opens the adapters.
  ///
  /// - Throws: as `Adapter`.
  func openAdapters() throws(PeftoolError) -> [Adapter] {
    var opened: [Adapter] = []
    for path in adapters { opened.append(try openAdapter(path)) }
    return opened
  }

  /// Opens one adapter.
  ///
  /// - Throws: as `Adapter`.
  func openAdapter(_ path: String) throws(PeftoolError) -> Adapter {
    try Adapter(opening: path, renaming: keyPrefix.map(\.renaming))
  }
}
