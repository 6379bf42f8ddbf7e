import Files
import JSON
import Reports

/// One way of converting: what `convert` does once it knows its input and output.
protocol ConvertJob: Sendable {
  /// The bytes that `run` tells of.
  var byteCount: Int { get }

  /// Carries it out, and puts the output in its place.
  ///
  /// - Parameter progress: is told of bytes done, from any thread.
  func run(
    force: Bool, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> ConvertSummary
}

/// What a conversion has done.
struct ConvertSummary: Sendable {
  /// What a person is told besides input and output.
  var facts: [(name: String, text: String)] = []
  /// What a program is told besides these; `Formats/json-output.md` describes it.
  var members: [JSON.Member] = []
  /// The bytes of the output.
  var byteCount = 0
  /// What the user should know.
  var notes: [String] = []
}

/// A summary in words and as JSON.
struct ConvertReport {
  let summary: ConvertSummary
  let input: String
  let output: String
  let seconds: Double

  /// The summary for a person.
  func text(width: Int) -> String {
    var facts = Facts()
    facts.append("from", input.printable)
    for fact in summary.facts { facts.append(fact.name, fact.text) }
    for note in summary.notes { facts.append("note", note) }
    facts.append(
      "written",
      "\(output == "-" ? "standard output" : output.printable): \(summary.byteCount.byteText) in "
        + "\(seconds.durationText) (\((Double(summary.byteCount) / seconds).rateText))")
    return facts.text(width: width)
  }

  /// The summary for a program.
  var json: JSON {
    .object(
      [.init("output", .string(output)), .init("input", .string(input))] + summary.members + [
        .init("bytes", .number(summary.byteCount)),
        .init("seconds", .number(seconds)),
        .init("notes", .array(summary.notes.map(JSON.string))),
      ])
  }
}
