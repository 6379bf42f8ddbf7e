import Adapters
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
      IN is a model in safetensors, packed or not, PyTorch files or GGUF, or an adapter. OUT is a \
      directory, one file where it ends in .safetensors, .gguf or .zst, or - for a safetensors \
      stream to standard output. It is whole or absent, whatever happens, and the same bytes for \
      any number of threads.

        peftool convert model.gguf -o model --dtype bf16
        peftool convert model -o model.gguf --dtype q8_0
        peftool convert pytorch_model.bin -o model.safetensors
        peftool convert Llama-3.2-1B -o smaller --dtype f16 --shard-size 2GB
        peftool convert Llama-3.2-1B -o part --include 'model.layers.*' --rename '^model[.]='
        peftool convert my-adapter -o adapter.gguf --base Llama-3.2-1B
        peftool convert Llama-3.2-1B -o base.safetensors.zst
        peftool convert merged -o merged.safetensors.zst --delta-from Llama-3.2-1B

      --dtype converts all floating tensors, each number rounded once to the nearest; one that the \
      dtype does not hold is an error, or with --saturate becomes the largest that it holds. NaN \
      and infinity stay what they are. config.json follows. --include and --exclude choose tensors \
      by their names, --rename replaces what a regular expression (Python's syntax) matches in \
      them; \\1 to \\9 in the template are its groups. Without these the tensors keep their files, \
      order and metadata, and a directory's other files come along.

      Where OUT ends in .zst the safetensors files are packed into one, losslessly, with their \
      index and the other files of their directory. The other verbs read it as it is; convert to a \
      directory, or for a single file to .safetensors, gives the files back byte for byte. With \
      --delta-from it holds of the tensors that BASE has, too, the exact differences only, and \
      needs BASE whenever they are read: at the path given or beside the file, or where \
      --delta-from says when it is unpacked. A base that is not the same, bit for bit, is an error. \
      Formats/packed.md describes the file.

      Of a GGUF model convert makes what transformers, PEFT and merge take: safetensors, \
      config.json, generation_config.json, tokenizer.json and tokenizer_config.json with the chat \
      template. Llama, Mistral, Qwen2 and Qwen3 are known, with the byte-level tokenizers of GPT-2, \
      SmolLM, Llama 3, Qwen and Mistral (Tekken), and SentencePiece. All of ggml's types are read; \
      quantized tensors get the numbers that ggml computes, bit for bit, in f32, rounded once to \
      --dtype. Without --dtype the matrices' own F16 or BF16 is kept, and F32 written for quantized \
      ones. Of a model in several files any of them may be named.

      Where OUT ends in .gguf a model directory of these families becomes a file as llama.cpp's \
      converter makes it: matrices as --dtype (f32, f16, bf16, q8_0, q4_0, q4_1, q5_0 or q5_1), \
      which is the model's own BF16 or F16 if left out, and F16 for another; vectors as F32; rows \
      that have no whole blocks as F16. Blocks are coded as the Python package gguf codes them. \
      Of an int4 model of MLX, GPTQ, AWQ or HQQ --dtype q4_1 takes the codes as they are, scales and \
      offsets rounded to float16 where they are not, and keeps the types of the other matrices. \
      The directory needs config.json and tokenizer.json. The rows of q_proj and k_proj, which \
      llama.cpp keeps in another order, change places, and back when a file is read. A way of \
      cutting text that peftool or llama.cpp has no name for is an error. Formats/gguf.md has the \
      names of tensors and settings.

      --layout lays the weights of an int4 model out as another tool has them, with the same codes: \
      as mlx, or as hqq, in F32. GPTQ's and AWQ's integer zero points become offsets of MLX's, into \
      which `merge` takes QA-LoRA exactly; HQQ's zero points are any numbers. Formats/int4.md has the \
      formulas.

        peftool convert Llama-3.2-3B-GPTQ -o offsets --layout mlx
        peftool convert offsets -o for-hqq --layout hqq

      Of a LoRA adapter it makes a file for llama.cpp's --lora, in F32 unless --dtype says f16, \
      bf16 or q8_0. rsLoRA, alpha_pattern and rank_pattern become part of alpha and of the \
      tensors. What such a file cannot hold is an error: DoRA, biases, and whole tensors.

      With --to an adapter of PEFT, mlx-lm, or kohya's scripts and LyCORIS is made one of another \
      of these formats. What it is the content decides; for mlx-lm and PEFT a folder is written, \
      for kohya a file. Dtypes stay, and the merged weights are the same but for one rounding \
      where a scaling has to go into a factor, which a note tells; what the other format has no \
      counterpart for is an error.

        peftool convert my-adapter -o for-mlx --to mlx
        peftool convert my-adapter -o kohya.safetensors --to kohya --prefix lora_te
        peftool convert kohya-adapter.safetensors -o for-peft --to peft --base Llama-3.2-1B

      --to lora makes LoRA of DoRA, AdaLoRA, LoHa and LoKr, with --rank or --energy the nearest of a \
      rank; DoRA needs these, and its --base. --to dora makes DoRA of LoRA: the merged weights stay \
      what they are, and its magnitudes are the lengths of their rows, for which it needs --base.

        peftool convert my-dora -o plain --to lora --rank 32 --base Llama-3.2-1B
        peftool convert my-loha -o plain --to lora --energy 0.99
        peftool convert my-lora -o dora --to dora --base Llama-3.2-1B

      kohya's names have '_' for '.': --base tells which is which, where the words of CLIP's, \
      diffusers' and Llama's names do not. --prefix is what names begin with, and chooses one of \
      a file's networks. Formats/mlx-adapter.md and Formats/kohya-adapter.md have the mapping.

      Formats/json-output.md describes what --json prints.
      """)

  @Argument(
    help: ArgumentHelp(
      "A model or an adapter: a directory, a file of tensors or an index.", valueName: "in"),
    completion: .file())
  var input: String

  @Option(
    name: .shortAndLong, help: ArgumentHelp("Where it goes.", valueName: "out"),
    completion: .file())
  var output: String

  @Option(
    help: ArgumentHelp(
      "Write floating tensors so: f32, f16, bf16, f8_e4m3, f8_e5m2 or f64; in GGUF also q8_0, "
        + "q4_0, q4_1, q5_0 or q5_1.", valueName: "dtype"),
    transform: Self.dtype)
  var dtype: DType?

  @Flag(help: "Take the largest number of a dtype for one that is too large for it.")
  var saturate = false

  @Option(
    help: ArgumentHelp("Write only tensors that match.", valueName: "glob"),
    transform: { try Glob($0) })
  var include: [Glob] = []

  @Option(
    help: ArgumentHelp("Leave out tensors that match.", valueName: "glob"),
    transform: { try Glob($0) })
  var exclude: [Glob] = []

  @Option(
    help: ArgumentHelp(
      "Replace what a regular expression matches in names; repeatable.",
      valueName: "regex=template"),
    transform: { try CheckpointSelection.Renaming($0) })
  var rename: [CheckpointSelection.Renaming] = []

  @Option(
    help: ArgumentHelp(
      "The model that an adapter was made for; for GGUF its directory, whose config.json is read.",
      valueName: "model"),
    completion: .file())
  var base: String?

  @Option(
    help: ArgumentHelp(
      "Make an adapter one of another format, peft, mlx or kohya, or of another method, lora or "
        + "dora.", valueName: "what"))
  var to: AdapterTarget?

  @Option(
    help: ArgumentHelp(
      "Lay the codes of an int4 model out anew, as mlx or hqq.", valueName: "layout"),
    transform: Self.layout)
  var layout: Int4Layout?

  @Option(
    help: ArgumentHelp(
      "What kohya's names of modules begin with, such as lora_te.", valueName: "prefix"))
  var prefix: String?

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

  @OptionGroup var rank: RankOptions

  @Flag(help: "With --to lora, decompose by LAPACK, however large the modules.")
  var exact = false

  @OptionGroup var writing: WritingOptions

  func validate() throws {
    if saturate, dtype == nil { throw ValidationError("--saturate goes with --dtype") }
    if to == nil, prefix != nil { throw ValidationError("--prefix goes with --to") }
    if to != .form(.lora), rank.choice != nil || exact {
      throw ValidationError("--rank, --energy and the like, and --exact go with --to lora")
    }
    if let prefix, prefix.isEmpty || prefix.contains(".") {
      throw ValidationError("--prefix is '\(prefix.printable)', expected a name without dots")
    }
    if let level, !BlockPacker.levels.contains(level) {
      throw ValidationError(
        "--level is \(level), expected 1 to \(BlockPacker.levels.upperBound)")
    }
    if level != nil, !isPacking { throw ValidationError("--level goes with -o FILE.zst") }
    if layout != nil, to != nil || isPacking || isGGUF || dtype != nil || !keepsTensors {
      throw ValidationError(
        "--layout goes with a directory of safetensors, and without --to, --dtype, --include, "
          + "--exclude and --rename: it keeps all numbers")
    }
    if let to { return try validate(to: to) }
    if isPacking {
      guard keepsAll, base == nil else {
        throw ValidationError(
          "-o names a .zst file, which is packed as it is: with --dtype, --include, --exclude, "
            + "--rename, --shard-size or --base convert in two steps")
      }
      return
    }
    if isGGUF {
      if let dtype, GGUFFileType.number(of: dtype) == nil {
        throw ValidationError(
          "--dtype \(dtype.rawValue) is none that a .gguf file is written in: F32, F16, BF16, Q8_0, "
            + "Q4_0, Q4_1, Q5_0 or Q5_1")
      }
      if !keepsTensors || saturate || writing.shardSize != nil || deltaBase != nil {
        throw ValidationError(
          "--include, --exclude, --rename, --saturate, --shard-size and --delta-from are for "
            + "safetensors: a GGUF file holds a whole model")
      }
      return
    }
    if let dtype, dtype.isBlock {
      throw ValidationError("--dtype \(dtype.rawValue) is for an output that ends in .gguf")
    }
    if base != nil {
      throw ValidationError("--base goes with --to, or an output that ends in .gguf")
    }
    try destination.validate(
      "convert", shardSize: writing.shardSize,
      onlyDirectory: layout == nil ? nil : "the layout stands in its config.json")
  }

  /// Refuses what does not go with `--to`.
  private func validate(to target: AdapterTarget) throws {
    if case .form = target, let dtype, ![.f32, .bf16, .f16].contains(dtype) {
      throw ValidationError(
        "--dtype is \(dtype.rawValue), with this --to expected f32, bf16 or f16")
    }
    let takesDType = if case .form = target { true } else { false }
    guard takesDType || dtype == nil, keepsTensors, !saturate, writing.shardSize == nil,
      deltaBase == nil
    else {
      throw ValidationError(
        "this --to goes without \(takesDType ? "" : "--dtype, ")--saturate, --shard-size, --include, "
          + "--exclude, --rename and --delta-from: an adapter keeps all of its tensors"
          + (takesDType ? "" : ", and their dtypes"))
    }
    if case .form = target, prefix != nil {
      throw ValidationError("--prefix goes with --to kohya, mlx or peft")
    }
    let (isFile, what) =
      target.isFile ? (true, "a file that ends in .safetensors") : (false, "a folder")
    let isNamedAsFile =
      output == "-" || ModelOutput.Destination.endings.contains(where: output.hasSuffix)
    guard isFile ? output.hasSuffix(".safetensors") : !isNamedAsFile else {
      throw ValidationError(
        "-o is '\(output.printable)', and with this --to \(what) is written")
    }
  }

  func run() throws {
    let start = monotonicSeconds()
    let job = try job()
    let progress = ProgressLine(
      "converting", totalByteCount: job.byteCount, isQuiet: writing.quiet)
    let summary = try job.run(force: writing.force, threads: writing.threads) {
      progress.advance(by: $0)
    }
    progress.finish()
    let report = ConvertReport(
      summary: summary, input: input, output: output, seconds: monotonicSeconds() - start)
    try writing.report(
      to: destination, text: report.text, json: { report.json.text(indent: 2) + "\n" })
  }

  private var isGGUF: Bool { output.hasSuffix(".gguf") }
  private var isPacking: Bool { output.hasSuffix(".zst") }
  /// Whether all tensors are written, under their names.
  private var keepsTensors: Bool { include.isEmpty && exclude.isEmpty && rename.isEmpty }
  /// Whether they stay what they are, and where, too.
  private var keepsAll: Bool { keepsTensors && dtype == nil && writing.shardSize == nil }
  private var destination: ModelOutput.Destination {
    isPacking || isGGUF ? .file(output) : .init(argument: output)
  }

  /// What is to be done, by what the input is and what the output is called.
  private func job() throws(PeftoolError) -> any ConvertJob {
    switch to {
    case .format(let format):
      return try AdapterJob(input, to: output, format, base: base, prefix: prefix)
    case .form(let form):
      return try AdapterFormJob(
        input, to: output, form, base: base, rank: rank.choice, isExact: exact, dtype: dtype)
    case nil: break
    }
    if isPacking {
      let packing = try Packing(
        Checkpoint(opening: input), base: deltaBase, level: level ?? Packing.defaultLevel)
      return PackingJob(packing: packing, base: deltaBase, path: output)
    }
    let checkpoint = try Checkpoint(opening: input, base: deltaBase)
    guard deltaBase == nil || checkpoint.packed?.base != nil else {
      throw PeftoolError(
        .unsupported,
        "is not made of differences: --delta-from is for a file that is, or goes "
          + "with -o FILE.zst", path: input)
    }
    if base != nil, !checkpoint.isAdapter {
      throw PeftoolError(.unsupported, "is a model, and --base goes with an adapter", path: input)
    }
    if isGGUF {
      let writing =
        try checkpoint.isAdapter
        ? GGUFWriting(Adapter(opening: input), base: base, dtype: dtype)
        : GGUFWriting(checkpoint, dtype: dtype)
      return GGUFJob(writing: writing, path: output)
    }
    if keepsAll, layout == nil, let packed = checkpoint.packed,
      let unpacking = Unpacking(packed, to: destination)
    {
      return UnpackingJob(unpacking: unpacking)
    }
    if let layout {
      let relaid = try RelaidModel(checkpoint, as: layout)
      return try conversion(of: relaid.model, notes: relaid.notes)
    }
    return try conversion(of: checkpoint)
  }

  private func conversion(
    of checkpoint: Checkpoint, notes: [String] = []
  ) throws(PeftoolError) -> ConversionJob {
    var options = CheckpointSelection.Options()
    options.dtype = dtype
    options.include = include
    options.exclude = exclude
    options.renamings = rename
    return try ConversionJob(
      checkpoint, options, to: destination, shardByteCount: writing.shardSize,
      overflow: saturate ? .saturated : .refused(hint: "; --saturate takes that instead"),
      notes: notes)
  }

  private static func layout(_ text: String) throws -> Int4Layout {
    guard let layout = RelaidSource.layouts.first(where: { $0.rawValue == text }) else {
      throw ValidationError(
        "'\(text.printable)' is none of "
          + RelaidSource.layouts.map(\.rawValue).joined(separator: ", "))
    }
    return layout
  }

  private static func dtype(_ text: String) throws -> DType {
    let dtypes = DType.convertible + DType.quantizable
    guard let dtype = DType(argument: text, among: dtypes) else {
      throw ValidationError(
        "'\(text.printable)' is none of "
          + dtypes.map { $0.rawValue.lowercased() }.joined(separator: ", "))
    }
    return dtype
  }
}
