import ArgumentParser
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Patterns
import Quantization
import Reports
import Tensors

/// `peftool quantize`: a model in bitsandbytes' own files.
struct QuantizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "quantize",
    abstract: "Quantizes a model as transformers and bitsandbytes do: NF4, FP4 or LLM.int8.",
    discussion: """
      Reads MODEL by blocks and writes OUT, a model directory with the bytes that transformers \
      5.23 saves on a CPU after it has loaded MODEL with a BitsAndBytesConfig of bitsandbytes \
      0.50.2: the same modules, tensors, shards and config.json. transformers, PEFT and vLLM load \
      it. OUT is whole or absent, whatever happens.

        peftool quantize Llama-3.2-1B -o quantized
        peftool quantize Llama-3.2-1B -o quantized --type int8
        peftool quantize Llama-3.2-1B -o quantized --exclude '*.down_proj' --report

      Linear modules are quantized, but for the output embedding, what is tied to an embedding, \
      and what transformers keeps in f32. Embeddings, norms and biases stay as they are, and so do \
      the experts of a mixture, which transformers fuses and bitsandbytes does not quantize. \
      --include and --exclude choose among these modules by their paths; the others are recorded \
      in llm_int8_skip_modules.

      The type of a model is what config.json says (dtype), else that of its first tensor; tensors \
      of another floating type are converted to it, as transformers does when it loads them. A \
      weight with NaN or infinity is an error. config.json is that of MODEL with \
      quantization_config, and generation_config.json and the other files are carried along: so \
      that they are transformers' own to the byte, MODEL has to be saved by the same release.

      Double quantization takes the scales less their mean. torch's mean of 32,768 scales and more \
      depends on its number of threads in the last bit; peftool's is that of one thread \
      (OMP_NUM_THREADS=1).

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

  @Option(help: "What weights become: nf4, fp4 or int8.")
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
    if type == .int8, scheme.isGiven || computeDtype != nil {
      throw ValidationError(
        "--block-size, --no-double-quant and --compute-dtype are for nf4 and fp4")
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
