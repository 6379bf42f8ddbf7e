import ArgumentParser
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Reports

/// `peftool dequantize`: the floating-point model of a quantized one.
struct DequantizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "dequantize",
    abstract: "Makes a 16- or 32-bit model of one that bitsandbytes has quantized.",
    discussion: """
      Reads a model with weights in NF4, FP4 or LLM.int8 and writes OUT, a model directory with \
      what the codes stand for: the model that QLoRA trains against. Nothing that quantization has \
      lost comes back. OUT is whole or absent, whatever happens.

        peftool dequantize quantized -o dequantized

      A 4-bit weight is level times scale in f32, rounded once to the type that it had; an 8-bit \
      one takes the type of config.json. That is the formula of bitsandbytes, but not always what \
      it computes on a CPU: with AVX-512 bitsandbytes 0.50.2 mistakes the scales where the input \
      width is no multiple of 64. Tensors that are not quantized keep their bytes, Conv1D weights \
      are turned back, and quantization_config goes from config.json.

      Formats/json-output.md describes what --json prints.
      """)

  @Argument(
    help: "The model: a directory, a .safetensors file or a .safetensors.index.json.",
    completion: .file())
  var model: String

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("The model directory to write.", valueName: "out"),
    completion: .directory)
  var output: String

  @Option(
    help: ArgumentHelp(
      "Write shards of at most this size, such as 5GB. (default: 50GB)", valueName: "size"),
    transform: { try ShardPlan.byteCount($0) })
  var shardSize: Int?

  @Option(
    help: ArgumentHelp("The number of threads; the bytes do not depend on it.", valueName: "n"))
  var threads: Int?

  @Flag(help: "Replace OUT where it is there already.")
  var force = false

  @Flag(help: "No progress and no summary.")
  var quiet = false

  @Flag(help: "Print one JSON object for the summary.")
  var json = false

  func validate() throws {
    if let threads, !(1...1024).contains(threads) {
      throw ValidationError("--threads is \(threads), expected 1 to 1024")
    }
    if output == "-" || output.hasSuffix(".safetensors") {
      throw ValidationError("-o is a directory: config.json changes, too")
    }
  }

  func run() throws {
    let start = monotonicSeconds()
    let plan = try DequantizePlan(Checkpoint(opening: model))
    let progress = ProgressLine(
      "dequantizing", totalByteCount: plan.byteCount, isQuiet: quiet)
    let byteCount = try Dequantize(plan: plan).run(
      to: output, force: force, threads: threads,
      shardByteCount: shardSize ?? QuantizePlan.Options().shardByteCount
    ) { progress.advance(by: $0) }
    progress.finish()
    let seconds = monotonicSeconds() - start
    if json {
      let report = JSON.object([
        .init("output", .string(output)), .init("model", .string(model)),
        .init(
          "tensors",
          .object([
            .init("total", .number(plan.tensors.count)),
            .init("dequantized", .number(plan.weightCount)),
            .init("copied", .number(plan.tensors.count - plan.weightCount)),
          ])),
        .init("bytes", .number(byteCount)), .init("seconds", .number(seconds)),
      ])
      try StandardOutput.print(report.text(indent: 2) + "\n")
    } else if !quiet {
      var facts = Facts()
      facts.append("model", model.printable)
      facts.append(
        "tensors",
        "\(plan.weightCount.groupedText) dequantized, "
          + "\((plan.tensors.count - plan.weightCount).groupedText) copied")
      facts.append(
        "written",
        "\(output.printable): \(byteCount.byteText) in \(seconds.durationText) "
          + "(\((Double(byteCount) / seconds).rateText))")
      try StandardOutput.print(facts.text(width: StandardOutput.width))
    }
  }
}
