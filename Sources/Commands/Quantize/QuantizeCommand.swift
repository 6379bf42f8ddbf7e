import ArgumentParser
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Patterns
import Quantization
import Reports
import Tensors

/// `peftool quantize`: a model in bitsandbytes' own files, or those of MLX, GPTQ and AWQ.
struct QuantizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "quantize",
    abstract: "Quantizes a model: NF4, FP4 and LLM.int8 of bitsandbytes, or INT4 by groups.",
    discussion: """
      Reads MODEL by blocks and writes OUT, a model directory: with nf4, fp4 and int8 the bytes that \
      transformers 5.23 saves on a CPU after it has loaded MODEL with a BitsAndBytesConfig of \
      bitsandbytes 0.50.2: the same modules, tensors, shards and config.json. transformers, PEFT \
      and vLLM load it. OUT is whole or absent, whatever happens.

        peftool quantize Llama-3.2-1B -o quantized
        peftool quantize Llama-3.2-1B -o quantized --type int8
        peftool quantize Llama-3.2-1B -o quantized --exclude '*.down_proj' --report
        peftool quantize Llama-3.2-3B -o coded --type int4 --group-size 32
        peftool quantize Llama-3.2-3B -o coded --type int4 --group-size 32 --layout gptq --symmetric

      Linear modules are quantized, but for the output embedding, what is tied to an embedding, \
      and what transformers keeps in f32. Embeddings, norms and biases stay as they are, and so do \
      the experts of a mixture, which transformers fuses and bitsandbytes does not quantize. \
      --include and --exclude choose among these modules by their paths; the others are recorded \
      in llm_int8_skip_modules, or where the layout of int4 has it.

      The type of a model is what config.json says (dtype), else that of its first tensor; tensors \
      of another floating type are converted to it, as transformers does when it loads them. A \
      weight with NaN or infinity is an error. config.json is that of MODEL with \
      quantization_config, and generation_config.json and the other files are carried along: so \
      that they are transformers' own to the byte, MODEL has to be saved by the same release.

      Double quantization takes the scales less their mean. torch's mean of 32,768 scales and more \
      depends on its number of threads in the last bit; peftool's is that of one thread \
      (OMP_NUM_THREADS=1).

      --type int4 gives each group of --group-size inputs of a row sixteen evenly spaced values, 0 \
      among them, by rounding to nearest: no data, no search. --layout says whose files are written: \
      mlx (mlx-lm), gptq or gptq_v2 (GPTQModel, vLLM, SGLang), awq (the gemm version: vLLM, mlx-lm). \
      The codes are the same in all of them, but for groups of gptq whose zero point would be 0, \
      which its readers get wrong: those have 1. A weight whose inputs the groups do not divide is an \
      error that says so. Readers of gptq may want --symmetric.

      What a layout can hold: gptq and awq have integer zero points, mlx real offsets, hqq real zero points. A merged \
      QA-LoRA, whose change is one number a group, needs real offsets: an integer zero point rounds \
      it away, all of it where it is smaller than half a step. Of a change of a twentieth of a step \
      offsets in float16, the default, lose 3 %, in bfloat16 25 %, in float32 (--scale-dtype) \
      nothing that matters. GGUF's Q4_1 has float16 offsets for groups of 32: convert -o m.gguf \
      --dtype q4_1 takes the codes of an int4 model as they are, exactly from mlx in float16, and \
      keeps the types of its other matrices; convert --layout makes HQQ's or MLX's files of a model in \
      int4, whosever it is, with the same codes. Formats/int4.md describes the files.

      --report tells for each weight what quantization loses: the root of the mean square error, \
      the largest error, the ratio of signal to noise and the bits a parameter, worst first; with \
      a file name it also draws that as a page for a browser.

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

  @Option(help: "What weights become: nf4, fp4, int8 or int4.")
  var type = QuantizedType.nf4

  @OptionGroup var scheme: SchemeOptions

  @Option(
    help: ArgumentHelp(
      "Record this type for computing with 4-bit weights: float32, float16 or bfloat16. "
        + "(default: the model's)", valueName: "dtype"),
    transform: Self.dtype)
  var computeDtype: DType?

  @Option(
    help: ArgumentHelp("Quantize only modules that match.", valueName: "glob"),
    transform: { try Glob($0) })
  var include: [Glob] = []

  @Option(
    help: ArgumentHelp("Leave modules that match as they are.", valueName: "glob"),
    transform: { try Glob($0) })
  var exclude: [Glob] = []

  @Option(
    defaultAsFlag: "", parsing: .next,
    help: ArgumentHelp(
      "Tell what each weight loses, and draw it as a page where a file is named.",
      valueName: "file.html"),
    completion: .file(extensions: ["html"]))
  var report: String?

  @OptionGroup var writing: WritingOptions

  func validate() throws {
    try scheme.validate(with: type)
    if computeDtype != nil, type != .nf4, type != .fp4 {
      throw ValidationError("--compute-dtype is for nf4 and fp4")
    }
    if let report, !report.isEmpty, !report.hasSuffix(".html") {
      throw ValidationError(
        "--report takes a file that ends in .html, not '\(report.printable)'; without one it stands "
          + "at the end")
    }
    try ModelOutput.Destination(argument: output).validate(
      "quantize", shardSize: writing.shardSize,
      onlyDirectory: "the settings stand in its config.json")
  }

  func run() throws {
    let start = monotonicSeconds()
    let page = report.flatMap {
      $0.isEmpty ? nil : ReportFile(path: $0, isForced: writing.force)
    }
    try page?.check(beside: output)
    var options = QuantizePlan.Options()
    options.scheme = scheme.scheme(type)
    options.include = include
    options.exclude = exclude
    options.computeDType = computeDtype
    if let shardSize = writing.shardSize { options.shardByteCount = shardSize }
    let plan = try QuantizePlan(Checkpoint(opening: model), options)
    let quantize = Quantize(plan: plan)
    var running = Quantize.Options()
    running.isForced = writing.force
    running.threads = writing.threads
    running.isCompared = report != nil
    let progress = ProgressLine(
      "quantizing", totalByteCount: quantize.inputByteCount, isQuiet: writing.quiet)
    let summary = try quantize.run(to: output, running) { progress.advance(by: $0) }
    progress.finish()
    let results = QuantizeReport(
      plan: plan, scheme: options.scheme, summary: summary, output: output, type: type.rawValue,
      seconds: monotonicSeconds() - start)
    try page?.write(results.page)
    if writing.json {
      try StandardOutput.print(results.json.text(indent: 2) + "\n")
    } else {
      var text = writing.quiet ? "" : results.text(width: StandardOutput.width)
      // Who asks for the report wants it, also without the summary.
      if let table = results.table(width: StandardOutput.terminalWidth) {
        text += (text.isEmpty ? "" : "\n") + table
      }
      if !text.isEmpty { try StandardOutput.print(text) }
    }
  }

  private static func dtype(_ text: String) throws -> DType {
    guard let dtype = DType(argument: text, among: [.f32, .f16, .bf16]) else {
      throw ValidationError("'\(text.printable)' is none of float32, float16, bfloat16")
    }
    return dtype
  }
}
