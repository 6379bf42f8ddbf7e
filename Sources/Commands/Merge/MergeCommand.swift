import Adapters
import ArgumentParser
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Reports
import Tensors

/// `peftool merge`: a base and adapters become one model.
struct MergeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "merge",
    abstract: "Folds LoRA, DoRA and other adapters into a base model.",
    discussion: """
      Reads BASE once and writes it with the adapters folded in: the numbers of PEFT's \
      merge_and_unload, in the memory of a few rows. Tensors that no adapter touches keep their \
      bytes; shards, order, metadata and the base's other files (configuration, tokenizer, \
      licence) are carried along; with --quantize shards, order and metadata are those of \
      `quantize`. OUT is whole or absent, whatever happens.

        peftool merge Llama-3.2-1B my-adapter -o merged
        peftool merge Llama-3.2-1B math code --weights 0.7,-0.5 -o mixed
        peftool merge Llama-3.2-1B my-adapter -o - | sha256sum

      OUT is a directory, one file where it ends in .safetensors, or - for one safetensors stream \
      to standard output. A base in PyTorch files becomes one in safetensors, its shards likewise.

      An adapter is a directory with adapter_config.json and adapter_model.safetensors, or \
      adapter_model.bin, as PEFT saves them: LoRA, rsLoRA, DoRA, AdaLoRA, IA3 or trainable \
      tokens, with biases, saved modules, target_parameters and layer_replication. A key that \
      matches nothing, a wrong rank or shape, and an adapter whose base was changed at its start \
      (PiSSA, OLoRA, CorDA, LoftQ) are errors.

      --weights: a weight multiplies the adapter's whole change W' - W, for LoRA and DoRA alike, so \
      that 0 gives the base. Several adapters make one sum, rounded once. --rounding peft merges \
      one after the other and rounds after each, as PEFT does; peft-safe is PEFT's safe_merge.

      The summary tells how much of the change rounding to BASE's type takes. Of a small change in \
      BF16 it may be half: --dtype F32, or the adapter beside BASE (generate --adapter), keeps it all.

      An adapter on one end of tied embeddings unties them: both are written, and \
      tie_word_embeddings becomes false. PEFT leaves them tied, and its result is wrong.

      A BASE that bitsandbytes has quantized (NF4, FP4, LLM.int8) is merged into as what its codes \
      stand for, and the result is a model in 16 or 32 bits; with --quantize, of BASE's type, the \
      weights that change are quantized again with their own settings, as PEFT's merge does, and \
      the others keep their codes. Of a BASE in 16 or 32 bits --quantize quantizes the merged \
      model, which is `merge` and `quantize` in one.

      So it is with INT4 by groups (MLX, GPTQ, AWQ, HQQ), which no sum with a LoRA fits: it gives each \
      weight a change of its own, and a group has sixteen values. The result in 32 bits is exact, in 16 \
      but for rounding, --requantize codes it again as BASE is and tells what is lost of the change, and the \
      adapter beside BASE (generate --adapter) loses nothing.

      QA-LoRA (finetune --method qa-lora, PEFT's use_qalora) has one number for each group of a row. \
      Into MLX's files it is merged as INT4: codes stay, and the change is added to the offsets, in \
      F32, which loses next to nothing, or with --offset-dtype in the type that they have, with what that takes \
      of the change told. The zero points of GPTQ and AWQ are integers and would take nearly all: such \
      a merge is refused with the loss that it would have, unless --requantize or --dtype is given; \
      after 'convert --layout mlx' of BASE, with the same codes, it is exact. \
      In 32 bits it is exact, too, and in 16 but for rounding.

        peftool quantize Llama-3.2-3B -o codes --type int4 --group-size 32
        peftool finetune codes --data train.jsonl -o pooled --method qa-lora --max-steps 10
        peftool merge codes pooled -o exact
        peftool convert exact -o exact.gguf --dtype q4_1

      What Tests/Benchmarks/qa_lora.py has measured of it: SmolLM2-135M, INT4 in groups of 32, 80 steps \
      of rank 8 on an invented task, and the loss of answers that were not learnt. QA-LoRA's scale lets \
      it learn faster here; what a merge costs is the difference from its adapter beside the base.

        INT4 with QA-LoRA beside it       2.3345
        merge INT4 QA-LORA                2.3345  4 bits  0.0003 % of the change is lost
        the same with --offset-dtype F16  2.3346  4 bits  2.3 %
        BASE with LoRA beside it          2.5037
        merge BASE LORA, then quantize    2.5956  4 bits
        INT4 with LoRA beside it          2.5079
        merge INT4 LORA --requantize      7.9097  4 bits  119 %

      Which one to choose for an adapter that was trained on NF4 (QLoRA), with what \
      Tests/Benchmarks/quantized_merge.py has measured: SmolLM2-135M, a LoRA of rank 16 trained on \
      NF4, and the mean loss on text that it was not trained on. NF4 with the adapter beside it has \
      3.728, NF4 alone 4.335, and BASE alone 4.155.

        merge NF4 ADAPTER                 3.730  16 bits  what the adapter has seen
        merge BASE ADAPTER --simulate nf4 3.730  16 bits  the same, from the original
        merge BASE ADAPTER                3.710  16 bits  a better base, but another
        merge BASE ADAPTER --quantize nf4 3.777  4 bits   quantized once, at the end
        merge NF4 ADAPTER --quantize nf4  4.315  4 bits   as PEFT does: mostly lost

      In the last nearly all weights fall back on the codes that they had, since an adapter changes \
      them by less than the step from code to code: for 4 bits merge into BASE and quantize that, \
      or keep the adapter beside NF4.

      Formats/json-output.md describes what --json prints.
      """)

  @Argument(
    help: "The base model: a directory, a file of tensors (safetensors, PyTorch) or an index.",
    completion: .file())
  var base: String

  @Argument(
    help: ArgumentHelp("The adapters' directories.", valueName: "adapter"),
    completion: .directory)
  var adapters: [String]

  @Option(
    name: .shortAndLong, help: ArgumentHelp("Where the model goes.", valueName: "out"),
    completion: .file())
  var output: String

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("A factor for each adapter, 1 if left out.", valueName: "w,w"))
  var weights: Weights?

  @Option(
    help: ArgumentHelp(
      "Write all floating tensors so: F32, F16, BF16, F8_E4M3, F8_E5M2 or F64.",
      valueName: "dtype"),
    transform: Self.dtype)
  var dtype: DType?

  @Option(
    help: ArgumentHelp(
      "Quantize the result: nf4, fp4, int8 or int4; a quantized base's weights as they were.",
      valueName: "type"))
  var quantize: QuantizedType?

  @Option(
    help: ArgumentHelp(
      "Merge into what quantization makes of the base, which an adapter trained on such a base has "
        + "seen: nf4, fp4, int8 or int4.", valueName: "type"))
  var simulate: QuantizedType?

  @OptionGroup var scheme: SchemeOptions

  @Flag(
    help: ArgumentHelp(
      "Quantize the weights of a quantized base that change again, with their own settings, and tell "
        + "what is lost of the change."))
  var requantize = false

  @Option(
    help: ArgumentHelp(
      "Of QA-LoRA merged into int4 as mlx: the type of scales and offsets, F32 if left out, or that "
        + "which they have: F16 or BF16.", valueName: "dtype"),
    transform: Self.offsetDType)
  var offsetDtype: DType?

  @Option(help: "When sums are rounded to the base's dtype: once, peft or peft-safe.")
  var rounding = Rounding.once

  @Option(
    help: ArgumentHelp(
      "Read adapter keys that begin with FROM as if they began with TO, such as "
        + "base_model.model.language_model.=base_model.model.; repeatable.", valueName: "from=to"))
  var keyPrefix: [KeyPrefix] = []

  @Flag(help: "Merge an adapter that fits only a base changed at its start (PiSSA and the like).")
  var allowMutatedBase = false

  @Flag(help: "Let NaN and infinity in the result pass, and count them.")
  var allowNonfinite = false

  @OptionGroup var writing: WritingOptions

  func validate() throws {
    guard !adapters.isEmpty else {
      throw ValidationError("Missing expected argument '<adapter> ...'")
    }
    try weights?.validate(count: adapters.count)
    try destination.validate("merge", shardSize: writing.shardSize)
    if quantize != nil, simulate != nil {
      throw ValidationError(
        "--simulate gives a model that is not quantized; to merge into a quantized base, quantize it "
          + "first, then merge with --quantize")
    }
    try scheme.validate(with: quantize ?? simulate)
    if requantize, quantize != nil || simulate != nil {
      throw ValidationError(
        "--requantize goes without --quantize and --simulate: the settings are the base's")
    }
    guard quantize != nil || requantize else { return }
    guard case .directory = destination else {
      throw ValidationError(
        "-o is a directory with --\(requantize ? "re" : "")quantize: config.json changes, too")
    }
    if dtype != nil || allowNonfinite {
      throw ValidationError("--dtype and --allow-nonfinite are for a result that is not quantized")
    }
  }

  func run() throws {
    let start = monotonicSeconds()
    let checkpoint = try Checkpoint(opening: base)
    guard !checkpoint.isAdapter else {
      throw PeftoolError(
        .unsupported, "is an adapter, expected a base model: that comes first, then its adapters",
        path: base)
    }
    let adapters = try adapters.map {
      try Adapter(opening: $0, renaming: keyPrefix.map(\.renaming))
    }
    let quantized = try QuantizedMerge(checkpoint, adapters, self)
    var options = MergePlan.Options(
      weights: weights?.values ?? adapters.map { _ in 1 })
    options.rounding = rounding
    options.dtype = dtype
    options.singles = quantized.singles
    options.dtypes = quantized.dtypes
    options.quantization = try quantized.settings(of: checkpoint)
    options.allowsMutatedBase = allowMutatedBase
    // Only what is simulated is read before the merge.
    let progress = ProgressLine(
      "measuring", totalByteCount: checkpoint.tensors.reduce(0) { $0 + $1.byteCount },
      isQuiet: writing.quiet)
    let plan = try MergePlan(
      quantized.base(checkpoint, threads: writing.threads) { progress.advance(by: $0) }, adapters,
      options)
    progress.finish()
    try quantized.check(plan, base: checkpoint)
    let quantization = try quantized.quantization(
      of: plan, base: checkpoint, shardByteCount: writing.shardSize)
    let summary = if let quantization { try run(plan, quantization) } else { try run(plan) }
    let loss = try quantization.flatMap { (quantization) throws(PeftoolError) in
      try quantized.isCodedAgain
        ? ChangeLoss(
          of: quantization.weights.map(\.tensor), base: plan.base.checkpoint,
          written: Checkpoint(opening: output).dequantized(otherDType: .f32),
          threads: writing.threads)
        : nil
    }
    let report = MergeReport(
      plan: plan, quantized: quantized, quantization: quantization, loss: loss, summary: summary,
      output: output, seconds: monotonicSeconds() - start, isDirectory: destination.isDirectory)
    try writing.report(
      to: destination, text: report.text, json: { report.json.text(indent: 2) + "\n" })
  }

  /// Writes the merged model.
  private func run(_ plan: MergePlan) throws(PeftoolError) -> Merge.Summary {
    let merge = try Merge(plan, to: destination, shardByteCount: writing.shardSize)
    var options = Merge.Options()
    options.isForced = writing.force
    options.allowsNonfinite = allowNonfinite
    options.threads = writing.threads
    let progress = ProgressLine("merging", totalByteCount: merge.byteCount, isQuiet: writing.quiet)
    let summary = try merge.run(options) { progress.advance(by: $0) }
    progress.finish()
    return summary
  }

  /// Writes the merged model, quantized.
  private func run(
    _ plan: MergePlan, _ quantization: QuantizePlan
  ) throws(PeftoolError) -> Merge.Summary {
    let quantize = Quantize(plan: quantization)
    var options = Quantize.Options()
    options.isForced = writing.force
    options.threads = writing.threads
    let progress = ProgressLine(
      "merging", totalByteCount: quantize.inputByteCount, isQuiet: writing.quiet)
    var summary = Merge.Summary(plan)
    summary.byteCount = try quantize.run(to: output, options) { progress.advance(by: $0) }.byteCount
    progress.finish()
    return summary
  }

  private var destination: ModelOutput.Destination { .init(argument: output) }

  private static func offsetDType(_ text: String) throws -> DType {
    guard let dtype = DType(argument: text, among: [.f32, .f16, .bf16]) else {
      throw ValidationError("'\(text.printable)' is none of F32, F16, BF16")
    }
    return dtype
  }

  private static func dtype(_ text: String) throws -> DType {
    guard let dtype = DType(argument: text, among: DType.convertible) else {
      throw ValidationError(
        "'\(text.printable)' is none of F32, F16, BF16, F8_E4M3, F8_E5M2, F64")
    }
    return dtype
  }
}

/// The numbers of `--weights`.
struct Weights: ExpressibleByArgument {
  let values: [Double]

  init?(argument: String) {
    var values: [Double] = []
    for part in argument.commaParts {
      guard let value = Double(part), value.isFinite else { return nil }
      values.append(value)
    }
    self.values = values
  }

  /// Refuses another number of weights than of adapters.
  func validate(count: Int) throws {
    guard values.count == count else {
      throw ValidationError(
        "--weights has \(values.count.text(of: "number")) for \(count.text(of: "adapter"))")
    }
  }
}

/// The two sides of `--key-prefix`.
struct KeyPrefix: ExpressibleByArgument {
  let renaming: Adapter.Renaming

  init?(argument: String) {
    guard let sign = argument.firstIndex(of: "=") else { return nil }
    renaming = Adapter.Renaming(
      from: String(argument[..<sign]), to: String(argument[argument.index(after: sign)...]))
  }
}

extension Rounding: ExpressibleByArgument {}
