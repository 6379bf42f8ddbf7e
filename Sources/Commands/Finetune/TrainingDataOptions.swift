import ArgumentParser
import Examples

/// What is trained on.
struct TrainingDataOptions: ParsableArguments {
  @Option(
    name: .customLong("data"),
    help: ArgumentHelp("Examples; - for standard input. May be repeated.", valueName: "file"),
    completion: .file())
  var paths: [String] = []

  @Option(
    name: .customLong("eval-data"),
    help: ArgumentHelp("Examples that are not trained on.", valueName: "file"),
    completion: .file())
  var evaluationPaths: [String] = []

  @Option(
    name: .customLong("data-format"),
    help: ArgumentHelp(
      "How --data is built, where its name does not say: "
        + DataFormat.allCases.map(\.rawValue).joined(separator: ", ") + ".", valueName: "format"))
  var format: DataFormat?

  @Option(
    help: ArgumentHelp("The most tokens of an example; 1024 or the model's most.", valueName: "n"))
  var maxLength: Int?

  @Flag(help: "Cut examples that are longer, which are an error else.")
  var truncate = false

  @Flag(help: "Learn prompts, too, and the turns of all.")
  var trainOnPrompt = false

  @Option(
    help: ArgumentHelp(
      "The chat template of messages, where the model's is not known.", valueName: "name"))
  var chatTemplate: String?

  @Flag(help: "Put several examples into a row, without letting them see each other.")
  var packing = false

  @Flag(help: "Put examples of like length into a batch.")
  var groupByLength = false

  func validate() throws {
    guard !paths.isEmpty else { throw ValidationError("Missing --data FILE: what is trained on") }
    guard (paths + evaluationPaths).count(where: { $0 == "-" }) <= 1 else {
      throw ValidationError("standard input can be read once only")
    }
    guard !packing || !groupByLength else {
      throw ValidationError("--packing and --group-by-length exclude each other")
    }
    if let maxLength, !(2...(1 << 20)).contains(maxLength) {
      throw ValidationError("--max-length is \(maxLength), expected 2 to \(1 << 20)")
    }
  }
}

extension DataFormat: ExpressibleByArgument {}
