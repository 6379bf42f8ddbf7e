import ArgumentParser
import Checkpoints
import Files
import JSON

/// What every verb that writes an adapter takes.
struct AdapterWritingOptions: ParsableArguments {
  @OptionGroup var run: RunOptions

  var threads: Int? { run.threads }
  var force: Bool { run.force }
  var quiet: Bool { run.quiet }
  var json: Bool { run.json }

  /// Refuses a name that other verbs take for a file or a stream.
  static func validate(output: String) throws {
    guard output == "-" || ModelOutput.Destination.endings.contains(where: output.hasSuffix) else {
      return
    }
    throw ValidationError("-o is '\(output.printable)', and an adapter is written as a folder")
  }

  /// Prints a summary in the form that is wanted.
  func report(_ report: ArithmeticReport) throws(PeftoolError) {
    guard json || !quiet else { return }
    try StandardOutput.print(
      json ? report.json.text(indent: 2) + "\n" : report.text(width: StandardOutput.width))
  }
}
