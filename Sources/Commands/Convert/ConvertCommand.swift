import Adapters
import ArgumentParser
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Reports
import Tensors

/// `peftool convert`: a model from one format to another.
struct ConvertCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "convert",
    abstract: "Makes a Hugging Face model directory of a GGUF model, or converts an adapter.",
    discussion: """
      Writes safetensors, config.json, generation_config.json, tokenizer.json and \
      tokenizer_config.json with the chat template, so that transformers, PEFT and merge take the \
      model. Llama, Mistral, Qwen2 and Qwen3 are known, with the byte-level tokenizers of GPT-2, \
      SmolLM, Llama 3, Qwen and Mistral (Tekken), and SentencePiece.

        peftool convert model.gguf -o model
        peftool convert model.gguf -o model --dtype bf16

      All of ggml's types are read; quantized tensors get the numbers that ggml computes, bit for \
      bit, in f32, rounded once to --dtype. Without --dtype the matrices' own F16 or BF16 is kept, \
      and F32 written for quantized ones. A number too large for F16 is an error. Of a model in \
      several files any of them may be named.

      The rows of attn_q and attn_k, which llama.cpp keeps in another order, are put back. Where a \
      tokenizer cuts text is not in the file: it is taken from the models that its name \
      (tokenizer.ggml.pre) stands for, and an unknown name is an error. Formats/gguf.md has the \
      names of tensors and settings.

      With --to an adapter of PEFT, mlx-lm, or kohya's scripts and LyCORIS is made one of another \
      of these formats. What it is the content decides; for mlx-lm and PEFT a folder is written, \
      for kohya a file. Dtypes stay, the merged weights are the same, and what the other format \
      has no counterpart for is an error.

        peftool convert my-adapter -o for-mlx --to mlx
        peftool convert my-adapter -o kohya.safetensors --to kohya --prefix lora_te
        peftool convert kohya-adapter.safetensors -o for-peft --to peft --base Llama-3.2-1B

      kohya's names have '_' for '.': --base tells which is which, where the words of CLIP's, \
      diffusers' and Llama's names do not. --prefix is what names begin with, and chooses one of \
      a file's networks. Formats/mlx-adapter.md and Formats/kohya-adapter.md have the mapping.
      """)

  @Argument(
    help: "A .gguf file, a folder with one model in GGUF, or with --to an adapter.",
    completion: .file())
  var path: String

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("Where the directory or the file goes.", valueName: "out"),
    completion: .directory)
  var output: String

  @Option(help: ArgumentHelp("Write all tensors so: f32, f16 or bf16.", valueName: "dtype"))
  var dtype: WrittenDType?

  @Option(
    help: ArgumentHelp(
      "The number of threads; the bytes do not depend on it.", valueName: "n"))
  var threads: Int?

  @Option(
    help: ArgumentHelp(
      "Write shards of at most this size, such as 500MB; 5GB if left out.", valueName: "size"),
    transform: { try ShardPlan.byteCount($0) })
  var shardSize: Int?

  @Flag(help: "Replace OUT where it is there already.")
  var force = false

  @Flag(help: "No progress and no summary.")
  var quiet = false

  @Flag(help: "Print one JSON object for the summary.")
  var json = false

  /// The dtypes that weights are written as.
  enum WrittenDType: String, ExpressibleByArgument, CaseIterable {
    case f32, f16, bf16

    init?(argument: String) {
      let names = ["float32": Self.f32, "float16": .f16, "bfloat16": .bf16]
      guard let dtype = Self(rawValue: argument.lowercased()) ?? names[argument.lowercased()]
      else { return nil }
      self = dtype
    }

    var dtype: DType {
      switch self {
      case .f32: .f32
      case .f16: .f16
      case .bf16: .bf16
      }
    }
  }

  @Option(
    help: ArgumentHelp(
      "Convert an adapter instead, to the format peft, mlx or kohya.", valueName: "format"))
  var to: AdapterFormat?

  @Option(
    help: ArgumentHelp("The model that the adapter was made for.", valueName: "model"),
    completion: .file())
  var base: String?

  @Option(
    help: ArgumentHelp(
      "What kohya's names of modules begin with, such as lora_te.", valueName: "prefix"))
  var prefix: String?

  private static let maximumThreadCount = 1024
  private static let shardByteCount = 5_000_000_000

  func validate() throws {
    if to == nil, base != nil || prefix != nil {
      throw ValidationError("--base and --prefix are for adapters, which --to converts")
    }
    if to != nil, dtype != nil || shardSize != nil {
      throw ValidationError("--dtype and --shard-size are for models: an adapter keeps its dtypes")
    }
    if let prefix, prefix.isEmpty || prefix.contains(".") {
      throw ValidationError("--prefix is '\(prefix)', expected a name without dots")
    }
    if let threads, !(1...Self.maximumThreadCount).contains(threads) {
      throw ValidationError("--threads is \(threads), expected 1 to \(Self.maximumThreadCount)")
    }
  }

  func run() throws {
    if let to {
      try convertAdapter(to: to)
      return
    }
    let start = monotonicSeconds()
    let checkpoint = try Checkpoint(opening: path)
    let conversion = try Conversion(
      checkpoint, dtype: dtype?.dtype, shardByteCount: shardSize ?? Self.shardByteCount)
    let progress = ProgressLine(
      "converting", totalByteCount: conversion.byteCount, isQuiet: quiet)
    try conversion.run(
      to: output, isForced: force, threads: threads ?? availableProcessorCount
    ) { progress.advance(by: $0) }
    progress.finish()
    let seconds = monotonicSeconds() - start
    if json {
      try StandardOutput.print(report(conversion, seconds).text(indent: 2) + "\n")
    } else if !quiet {
      try StandardOutput.print(text(conversion, seconds))
    }
  }

  private func text(_ conversion: Conversion, _ seconds: Double) -> String {
    var facts = Facts()
    facts.append("model", path.printable)
    facts.append(
      "tensors", "\(conversion.tensorCount.groupedText), as \(conversion.dtype.rawValue)")
    for note in conversion.notes { facts.append("note", note) }
    facts.append(
      "written",
      "\(output.printable): \(conversion.byteCount.byteText) in \(seconds.durationText)")
    return facts.text(width: StandardOutput.width)
  }

  private func report(_ conversion: Conversion, _ seconds: Double) -> JSON {
    .object([
      .init("output", .string(output)),
      .init("model", .string(path)),
      .init("tensors", .number(conversion.tensorCount)),
      .init("dtype", .string(conversion.dtype.rawValue)),
      .init("bytes", .number(conversion.byteCount)),
      .init("seconds", .number(seconds)),
      .init("notes", .array(conversion.notes.map(JSON.string))),
    ])
  }
}
