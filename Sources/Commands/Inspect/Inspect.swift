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
        peftool inspect my-adapter --base Llama-3.2-1B --stats

      GLOB must match the whole name: * stands for any characters, ? for one, [a-z] for one of \
      these, {q_proj,v_proj} for one of these texts, {0-21} for a number. The names in the table \
      are such patterns, too.

      --stats: minimum, maximum, mean and L2 norm are of the finite numbers, computed in f64; \
      'zeros', 'NaN' and 'inf' count numbers. A column of counts that are all 0 is left out.

      Of an adapter of low-rank pairs, PEFT's, mlx-lm's or kohya's, --stats also tells what each \
      module's update s*B*A is, which is never formed: its rank; its norm (of Frobenius); the \
      effective rank, the exponential of the entropy of its singular values as shares of their \
      sum; the stable rank, the sum of their squares by the square of the largest; and the three \
      largest. With --base also the norm's share of the weight's norm: MODEL is read once, by \
      blocks. Of DoRA these figures are of s*B*A, without the magnitudes; with --base there is also \
      'change', the norm of W' - W, all that the adapter changes. With --tensors they are of the \
      modules that have a tensor which matches.

        peftool inspect my-adapter --stats --report updates.html

      --report draws them as a page for a browser: maps of the norms, or their shares of the base, \
      and of the effective ranks by layer and kind of module, and the singular values.

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

  @Option(
    help: ArgumentHelp(
      "Draw what --stats tells of an adapter as a page.", valueName: "file.html"),
    completion: .file(extensions: ["html"]))
  var report: String?

  @Flag(help: "Replace the page where it is there already.")
  var force = false

  @Flag(help: "No progress.")
  var quiet = false

  @Flag(help: "Print one JSON object instead.")
  var json = false

  func validate() throws {
    if let report {
      guard stats else { throw ValidationError("--report draws what --stats tells: add --stats") }
      guard report.hasSuffix(".html") else {
        throw ValidationError(
          "--report takes a file that ends in .html, not '\(report.printable)'")
      }
    } else if force {
      throw ValidationError("--force is for --report")
    }
  }

  func run() throws {
    let page = report.map { ReportFile(path: $0, isForced: force) }
    try page?.check()
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
      if inspection.isAdapter { try findDeltas(for: &inspection) }
    }
    if let page {
      guard let deltas = inspection.deltas else {
        throw PeftoolError(
          .unsupported,
          "has no updates that --report could draw: "
            + (inspection.deltasRefusal ?? "is no adapter"), path: path)
      }
      try page.write(DeltaPage(title: path.printable, deltas: deltas).text)
    }
    try StandardOutput.print(
      json
        ? inspection.report.text(indent: 2) + "\n"
        : inspection.text(
          width: StandardOutput.width, tableWidth: StandardOutput.terminalWidth))
  }

  /// Adds the figures of an adapter's updates, or why there are none: what is no sound low-rank
  /// adapter is inspected all the same.
  private func findDeltas(for inspection: inout Inspection) throws {
    try OpenBLAS.prepare()
    let model = try BaseModel(at: base)
    do throws(PeftoolError) {
      let adapter = try AdapterFormat.readPairs(path, base: model).adapter
      let statistics = try AdapterStatistics(of: adapter, base: model) { module in
        tensors.map { module.tensorNames.contains(where: $0.matches) } ?? true
      }
      let progress = ProgressLine(
        "decomposing", totalByteCount: statistics.byteCount, isQuiet: quiet)
      inspection.deltas = try AdapterDeltas(
        statistics, threads: availableProcessorCount, progress: progress)
      progress.finish()
    } catch {
      guard error.kind == .unsupported || error.kind == .damaged || error.kind == .different,
        base == nil || error.kind != .different
      else { throw error }
      inspection.deltasRefusal = error.description
    }
  }
}

extension Checkpoint {
  /// The elements of all tensors; of a quantized model those that its codes stand for, and of a sparse
  /// change without the places of its entries.
  var parameterCount: Int {
    // What is damaged counts as it lies: verify tells of that.
    let model = (try? adaptable) ?? self
    return model.tensors.reduce(0) {
      AdapterKey($1.name)?.part == .shiraIndices ? $0 : $0 + $1.elementCount
    }
  }
}
