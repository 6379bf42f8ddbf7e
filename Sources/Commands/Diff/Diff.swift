import ArgumentParser
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Reports

/// `peftool diff`: how two checkpoints differ.
struct Diff: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compares two checkpoints tensor by tensor.",
    discussion: """
      Pairs the tensors of A and B by name, whatever the sharding and the dtypes, and prints those \
      that differ, the worst first: the largest |a - b|, the relative difference \
      norm(a - b) / norm(b), the cosine of the angle between a and b, and how many elements are \
      not equal. Then tensors that only one of them has, other shapes, and as the last line the \
      verdict: 'identical', 'within tolerance' or 'different'. In a terminal the 20 worst are \
      shown, in a pipe all.

        peftool diff merged expected
        peftool diff merged expected --atol 1e-6 --rtol 1e-5

      Elements are compared by value: 0 equals -0, NaN equals NaN, and 1 in BF16 equals 1 in F32. \
      An element is within tolerance if |a - b| <= atol + rtol * |b|.

      An output layer (lm_head.weight) that one side does not store is compared with that side's \
      embedding if it has a config.json that does not say tie_word_embeddings: false. Other files \
      of a model directory are not compared. Of two adapters the settings of adapter_config.json \
      that change what the tensors mean count as differences, too.

      Exit status: 0 identical or within tolerance; 1 different; 2 could not compare. \
      Formats/json-output.md describes what --json prints.
      """)

  @Argument(
    help: "A model, a checkpoint or an adapter: a file, an index or a directory.",
    completion: .file())
  var a: String

  @Argument(help: "What A is compared with.", completion: .file())
  var b: String

  @Option(help: "The absolute difference that an element may have, default 0.")
  var atol: Double?

  @Option(help: "The difference that an element may have relative to |b|, default 0.")
  var rtol: Double?

  @Flag(help: "No progress.")
  var quiet = false

  @Flag(help: "Print one JSON object instead.")
  var json = false

  func validate() throws {
    for (name, value) in [("--atol", atol), ("--rtol", rtol)] {
      if let value, !(value >= 0 && value.isFinite) {
        throw ValidationError("\(name) is \(value), expected a number of at least 0")
      }
    }
  }

  func run() throws {
    let difference = try CheckpointDifference(
      Checkpoint(opening: a), Checkpoint(opening: b),
      within: DiffTolerance(absolute: atol ?? 0, relative: rtol ?? 0),
      threads: availableProcessorCount, isQuiet: quiet)
    try StandardOutput.print(
      json
        ? difference.report.text(indent: 2) + "\n"
        : difference.text(
          width: StandardOutput.width, tableWidth: StandardOutput.terminalWidth))
    if difference.verdict == .different { throw ExitCode(1) }
  }
}
