import Adapters
import ArgumentParser
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Patterns
import Reports
import Tensors

/// `peftool inspect`: what is in a checkpoint.
struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows what is in a model, a checkpoint or an adapter.",
    discussion: """
      Prints what PATH is, its size, dtypes and architecture, or what an adapter does, and a \
      table of its tensors. Tensors of one dtype and shape whose names differ in a layer's or an \
      expert's number share a line, with their count and the size of all. Only headers and \
      configuration files are read, unless --stats asks for what the tensors hold.

        peftool inspect Llama-3.2-1B
        peftool inspect model.gguf
        peftool inspect my-adapter --base Llama-3.2-1B
        peftool inspect model.safetensors --tensors '*.layers.{0-3}.*' --stats

      GLOB must match the whole name: * stands for any characters, ? for one, [a-z] for one of \
      these, {q_proj,v_proj} for one of these texts, {0-21} for a number. The names in the table \
      are such patterns, too.

      --stats: minimum, maximum, mean and L2 norm are of the finite numbers, computed in f64; \
      'zeros', 'NaN' and 'inf' count numbers. A column of counts that are all 0 is left out.

      Formats/json-output.md describes what --json prints.
      """)

  @Argument(
    help: "A file of tensors (safetensors, GGUF, PyTorch), an index of shards, or a folder.",
    completion: .file())
  var path: String

  @Option(
    help: ArgumentHelp("List each tensor whose name matches.", valueName: "glob"),
    transform: { try Glob($0) })
  var tensors: Glob?

  @Flag(help: "Read the tensors: minimum, maximum, mean, norm, zeros, NaN, infinities.")
  var stats = false

  @Option(
    help: "The model that an adapter is for, to show the adapter's share of it.",
    completion: .file())
  var base: String?

  @Flag(help: "No progress.")
  var quiet = false

  @Flag(help: "Print one JSON object instead.")
  var json = false

  func run() throws {
    let checkpoint = try Checkpoint(opening: path)
    var inspection = try Inspection(checkpoint, matching: tensors)
    guard base == nil || inspection.isAdapter else {
      throw PeftoolError(.unsupported, "is no adapter, and --base is for adapters", path: path)
    }
    if let base { inspection.baseParameterCount = try Checkpoint(opening: base).parameterCount }
    if stats {
      let shown = inspection.tensors
      let progress = ProgressLine(
        "reading", totalByteCount: shown.reduce(0) { $0 + ($1.dtype.isNumeric ? $1.byteCount : 0) },
        isQuiet: quiet)
      inspection.statistics = try statistics(
        of: shown, in: checkpoint.source, threads: availableProcessorCount, progress: progress)
      progress.finish()
    }
    try StandardOutput.print(
      json
        ? inspection.report.text(indent: 2) + "\n"
        : inspection.text(
          width: StandardOutput.width, tableWidth: StandardOutput.terminalWidth))
  }
}

extension Checkpoint {
  /// The elements of all tensors; of a quantized model those that its codes stand for.
  var parameterCount: Int {
    // What is damaged counts as it lies: verify tells of that.
    let model = (try? adaptable) ?? self
    return model.tensors.reduce(0) { $0 + $1.elementCount }
  }
}
