import ArgumentParser
import Checkpoints
import Files
import JSON
import Tensors

/// What every verb that writes an adapter takes.
struct AdapterWritingOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Write numbers as f32, bf16 or f16, rounded once; f32 if left out, and as they are what is not "
        + "computed.", valueName: "dtype"),
    transform: Self.dtype)
  var dtype: DType?

  @OptionGroup var run: RunOptions

  var threads: Int? { run.threads }
  var force: Bool { run.force }
  var quiet: Bool { run.quiet }
  var json: Bool { run.json }

  private static func dtype(_ text: String) throws -> DType {
    let dtypes: [DType] = [.f32, .bf16, .f16]
    guard let dtype = DType(argument: text, among: dtypes) else {
      throw ValidationError(
        "'\(text.printable)' is none of "
          + dtypes.map { $0.rawValue.lowercased() }.joined(separator: ", "))
    }
    return dtype
  }

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
