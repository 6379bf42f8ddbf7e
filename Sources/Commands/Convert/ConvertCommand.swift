import ArgumentParser
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Patterns
import Reports
import Tensors

/// `peftool convert`: a checkpoint in another format, in other files or of another dtype.
struct ConvertCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "convert",
    abstract: "Converts checkpoints between formats, dtypes and numbers of files.",
    discussion: """
      IN is a model in safetensors, packed or not, PyTorch files or GGUF. OUT is a directory, one \
      file where it ends in .safetensors, a packed file where it ends in .zst, or - for a \
      safetensors stream to standard output. It is whole or absent, whatever happens, and the same \
      bytes for any number of threads.

        peftool convert model.gguf -o model --dtype bf16
        peftool convert pytorch_model.bin -o model.safetensors
        peftool convert model -o smaller --dtype f16 --shard-size 2GB
        peftool convert model -o text --include 'language_model.*' \\
          --rename '^language_model\\.=model.'
        peftool convert model -o model.safetensors.zst
        peftool convert tuned -o tuned.safetensors.zst --delta-from model

      --dtype converts all floating tensors, each number rounded once to the nearest; one that the \
      dtype does not hold is an error, or with --saturate becomes the largest that it holds. NaN \
      and infinity stay what they are. config.json follows. --include and --exclude choose tensors \
      by their names, --rename replaces what a regular expression (Python's syntax) matches in \
      them; \\1 to \\9 in the template are its groups. Without these the tensors keep their files, \
      order and metadata, and a directory's other files come along.

      A packed file holds safetensors files, losslessly, with their index and the other files of \
      their directory. The other verbs read it as it is; convert to a directory, or for a single \
      file to .safetensors, gives the files back byte for byte. With --delta-from it holds of the \
      tensors that BASE has, too, the exact differences only, and needs BASE whenever they are \
      read: at the path given or beside the file, or where --delta-from says when it is unpacked. \
      A base that is not the same, bit for bit, is an error. Formats/packed.md describes the file.

      Of a GGUF model convert makes what transformers, PEFT and merge take: safetensors, \
      config.json, generation_config.json, tokenizer.json and tokenizer_config.json with the chat \
      template. Llama, Mistral, Qwen2 and Qwen3 are known, with the byte-level tokenizers of GPT-2, \
      SmolLM, Llama 3, Qwen and Mistral (Tekken), and SentencePiece. All of ggml's types are read; \
      quantized tensors get the numbers that ggml computes, bit for bit, in f32, rounded once to \
      --dtype. Without --dtype the matrices' own F16 or BF16 is kept, and F32 written for quantized \
      ones. Of a model in several files any of them may be named.

      The rows of attn_q and attn_k, which llama.cpp keeps in another order, are put back. Where a \
      tokenizer cuts text is not in the file: it is taken from the models that its name \
      (tokenizer.ggml.pre) stands for, and an unknown name is an error. Formats/gguf.md has the \
      names of tensors and settings.

      Formats/json-output.md describes what --json prints.
      """)

  @Argument(
    help: ArgumentHelp("The model: a directory, a file of tensors or an index.", valueName: "in"),
    completion: .file())
  var input: String

  @Option(
    name: .shortAndLong, help: ArgumentHelp("Where it goes.", valueName: "out"),
    completion: .file())
  var output: String

  @Option(
    help: ArgumentHelp(
      "Write floating tensors so: f32, f16, bf16, f8_e4m3, f8_e5m2 or f64.", valueName: "dtype"))
  var dtype: WrittenDType?

  @Flag(help: "Take the largest number of a dtype for one that is too large for it.")
  var saturate = false

  @Option(help: ArgumentHelp("Write only tensors that match.", valueName: "glob"))
  var include: [String] = []

  @Option(help: ArgumentHelp("Leave out tensors that match.", valueName: "glob"))
  var exclude: [String] = []

  @Option(
    help: ArgumentHelp(
      "Replace what a regular expression matches in names; repeatable.",
      valueName: "regex=template"))
  var rename: [String] = []

  @Option(
    name: .customLong("delta-from"),
    help: ArgumentHelp(
      "Pack the exact difference to this model; or where it is, to unpack.", valueName: "base"),
    completion: .file())
  var deltaBase: String?

  @Option(
    help: ArgumentHelp(
      "How hard zstd tries on whole numbers and texts of a .zst file: 1 to 19.",
      valueName: "n"))
  var level: Int?

  @OptionGroup var writing: WritingOptions

  func validate() throws {
    if saturate, dtype == nil { throw ValidationError("--saturate goes with --dtype") }
    if let level, !BlockPacker.levels.contains(level) {
      throw ValidationError(
        "--level is \(level), expected 1 to \(BlockPacker.levels.upperBound)")
    }
    guard isPacking else {
      try destination.validate("convert", shardSize: writing.shardSize)
      if level != nil { throw ValidationError("--level goes with -o FILE.zst") }
      return
    }
    guard keepsAll else {
      throw ValidationError(
        "-o names a .zst file, which is packed as it is: with --dtype, --include, --exclude, "
          + "--rename or --shard-size convert in two steps")
    }
  }

  /// Whether a packed file is written.
  private var isPacking: Bool { output.hasSuffix(".zst") }

  /// Whether all tensors stay what they are, and where.
  private var keepsAll: Bool {
    dtype == nil && include.isEmpty && exclude.isEmpty && rename.isEmpty
      && writing.shardSize == nil
  }

  func run() throws {
    let start = monotonicSeconds()
    guard !isPacking else { return try pack(from: start) }
    let checkpoint = try Checkpoint(opening: input, base: deltaBase)
    guard deltaBase == nil || checkpoint.packed?.base != nil else {
      throw PeftoolError(
        .unsupported,
        "is not made of differences: --delta-from is for a file that is, or goes "
          + "with -o FILE.zst", path: input)
    }
    if let packed = checkpoint.packed, keepsAll,
      let unpacking = Unpacking(packed, to: destination)
    {
      return try unpack(unpacking, from: start)
    }
    let job = try job(checkpoint)
    let progress = ProgressLine(
      "converting", totalByteCount: job.conversion.byteCount, isQuiet: writing.quiet)
    try job.conversion.run(
      force: writing.force, threads: writing.threads, progress: { progress.advance(by: $0) },
      companions: job.companions.write)
    progress.finish()
    let report = ConversionReport(
      job: job, input: input, output: output, seconds: monotonicSeconds() - start)
    try writing.report(
      to: destination, text: report.text, json: { report.json.text(indent: 2) + "\n" })
  }

  private func pack(from start: Double) throws(PeftoolError) {
    let packing = try Packing(
      Checkpoint(opening: input), base: deltaBase, level: level ?? Packing.defaultLevel)
    let progress = ProgressLine(
      "packing", totalByteCount: packing.byteCount, isQuiet: writing.quiet)
    let summary = try packing.run(
      to: output, isForced: writing.force, threads: writing.threads,
      progress: { progress.advance(by: $0) })
    progress.finish()
    let report = PackingReport(
      packing: packing, summary: summary, input: input, base: deltaBase, output: output,
      seconds: monotonicSeconds() - start)
    try writing.report(
      to: .file(output), text: report.text, json: { report.json.text(indent: 2) + "\n" })
  }

  private func unpack(_ unpacking: Unpacking, from start: Double) throws(PeftoolError) {
    let progress = ProgressLine(
      "unpacking", totalByteCount: unpacking.workByteCount, isQuiet: writing.quiet)
    try unpacking.run(
      isForced: writing.force, threads: writing.threads,
      progress: { progress.advance(by: $0) })
    progress.finish()
    let report = UnpackingReport(
      unpacking: unpacking, input: input, output: output, seconds: monotonicSeconds() - start)
    try writing.report(
      to: destination, text: report.text, json: { report.json.text(indent: 2) + "\n" })
  }

  private var destination: ModelOutput.Destination { .init(argument: output) }

  private func job(_ checkpoint: Checkpoint) throws(PeftoolError) -> ConversionJob {
    var options = CheckpointSelection.Options()
    options.dtype = dtype?.dtype
    for glob in include { options.include.append(try Glob(glob)) }
    for glob in exclude { options.exclude.append(try Glob(glob)) }
    for renaming in rename { options.renamings.append(try .init(renaming)) }
    return try ConversionJob(
      checkpoint, options, to: destination, shardByteCount: writing.shardSize,
      overflow: saturate ? .saturated : .refused(hint: "; --saturate takes that instead"))
  }
}

/// The dtypes that tensors are converted to, as users write them.
struct WrittenDType: ExpressibleByArgument {
  let dtype: DType

  init?(argument: String) {
    let name = argument.lowercased()
    let names: [DType] = [.f64, .f32, .f16, .bf16, .f8E4M3, .f8E5M2]
    let found = names.first { $0.rawValue.lowercased() == name || $0.torchName == name }
    guard let found else { return nil }
    dtype = found
  }

  static var allValueStrings: [String] { ["f32", "f16", "bf16", "f8_e4m3", "f8_e5m2", "f64"] }
}
