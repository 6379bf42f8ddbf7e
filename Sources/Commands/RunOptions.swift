import ArgumentParser

/// What every verb takes that writes something and tells of it.
struct RunOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp("The number of threads; the bytes do not depend on it.", valueName: "n"))
  var threads: Int?

  @Flag(
    help: """
      Replace OUT where it is there already: a file, an empty folder, or one that holds the same, \
      a model or an adapter, and no folders.
      """)
  var force = false

  @Flag(help: "No progress and no summary.")
  var quiet = false

  @Flag(help: "Print one JSON object for the summary.")
  var json = false

  private static let maximumThreadCount = 1024

  func validate() throws {
    if let threads { try Self.validate(threads: threads) }
  }

  /// Refuses a number of threads that no machine has.
  static func validate(threads: Int) throws {
    guard (1...maximumThreadCount).contains(threads) else {
      throw ValidationError("--threads is \(threads), expected 1 to \(maximumThreadCount)")
    }
  }
}
