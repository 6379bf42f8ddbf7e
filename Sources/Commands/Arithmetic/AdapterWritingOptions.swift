import ArgumentParser
import Checkpoints
import Files
import JSON

/// What every verb that writes an adapter takes.
struct AdapterWritingOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp("The number of threads; the bytes do not depend on it.", valueName: "n"))
  var threads: Int?

  @Flag(help: "Replace OUT where it is there already.")
  var force = false

  @Flag(help: "No progress and no summary.")
  var quiet = false

  @Flag(help: "Print one JSON object for the summary.")
  var json = false

  /// Refuses a name that other verbs take for a file or a stream.
  static func validate(output: String) throws {
    guard output == "-" || ModelOutput.Destination.endings.contains(where: output.hasSuffix) else {
      return
    }
    throw ValidationError("-o is '\(output.printable)', and an adapter is written as a folder")
  }

  func validate() throws { try WritingOptions.validate(threads: threads) }

  /// Prints a summary in the form that is wanted.
  func report(_ report: ArithmeticReport) throws(PeftoolError) {
    guard json || !quiet else { return }
    try StandardOutput.print(
      json ? report.json.text(indent: 2) + "\n" : report.text(width: StandardOutput.width))
  }
}
