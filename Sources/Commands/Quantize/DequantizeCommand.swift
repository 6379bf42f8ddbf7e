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
    abstract: "Makes a 16- or 32-bit model of a quantized one.",
    discussion: """
      Reads a model with weights in NF4, FP4 or LLM.int8 of bitsandbytes, or in INT4 by groups as \
      MLX, GPTQ (v1 and v2, act-order too), AWQ (gemm) and HQQ have it, and writes OUT, a model directory \
      with what the codes stand for: the model that QLoRA trains against. Nothing that quantization \
      has lost comes back. OUT is whole or absent, whatever happens.

        peftool dequantize quantized -o dequantized

      A 4-bit weight is level times scale in f32, rounded once to the type that it had; an 8-bit \
      one, and one of INT4, takes the type of config.json. Of bitsandbytes that is the formula of bitsandbytes, but not always what \
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

  @OptionGroup var writing: WritingOptions

  func validate() throws {
    try ModelOutput.Destination(argument: output).validate(
      "dequantize", shardSize: writing.shardSize,
      onlyDirectory: "config.json changes, too")
  }

  func run() throws {
    let start = monotonicSeconds()
    let plan = try Dequantization(Checkpoint(opening: model))
    let conversion = try plan.conversion(
      to: output,
      shardByteCount: writing.shardSize ?? QuantizePlan.Options().shardByteCount)
    let byteCount = conversion.byteCount
    let progress = ProgressLine(
      "dequantizing", totalByteCount: byteCount, isQuiet: writing.quiet)
    try conversion.run(
      force: writing.force, threads: writing.threads, progress: { progress.advance(by: $0) }
    ) { (folder) throws(PeftoolError) in
      try folder.carryOtherFiles(of: plan.model, config: plan.model.modelConfig)
    }
    progress.finish()
    let seconds = monotonicSeconds() - start
    if writing.json {
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
        .init("notes", .array(plan.model.leftBehind.map(JSON.string))),
      ])
      try StandardOutput.print(report.text(indent: 2) + "\n")
    } else if !writing.quiet {
      var facts = Facts()
      facts.append("model", model.printable)
      facts.append(
        "tensors",
        "\(plan.weightCount.groupedText) dequantized, "
          + "\((plan.tensors.count - plan.weightCount).groupedText) copied")
      for note in plan.model.leftBehind { facts.append("note", note) }
      facts.append(
        "written",
        "\(output.printable): \(byteCount.byteText) in \(seconds.durationText) "
          + "(\((Double(byteCount) / seconds).rateText))")
      try StandardOutput.print(facts.text(width: StandardOutput.width))
    }
  }
}
