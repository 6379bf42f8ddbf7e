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
    abstract: "Makes a Hugging Face model directory of a GGUF model, or the other way round.",
    discussion: """
      Of a GGUF model it makes a directory: safetensors, config.json, generation_config.json, tokenizer.json and \
      tokenizer_config.json with the chat template, so that transformers, PEFT and merge take the \
      model. Llama, Mistral, Qwen2 and Qwen3 are known, with the byte-level tokenizers of GPT-2, \
      SmolLM, Llama 3, Qwen and Mistral (Tekken), and SentencePiece.

        peftool convert model.gguf -o model
        peftool convert model.gguf -o model --dtype bf16
        peftool convert model -o model.gguf
        peftool convert model -o model.gguf --dtype q8_0
        peftool convert my-adapter -o adapter.gguf --base Llama-3.2-1B

      All of ggml's types are read; quantized tensors get the numbers that ggml computes, bit for \
      bit, in f32, rounded once to --dtype. Without --dtype the matrices' own F16 or BF16 is kept, \
      and F32 written for quantized ones. A number too large for F16 is an error. Of a model in \
      several files any of them may be named.

      The rows of attn_q and attn_k, which llama.cpp keeps in another order, are put back. Where a \
      tokenizer cuts text is not in the file: it is taken from the models that its name \
      (tokenizer.ggml.pre) stands for, and an unknown name is an error. Formats/gguf.md has the \
      names of tensors and settings.

      Of a model directory it makes a file where OUT ends in .gguf, as llama.cpp's converter does: \
      matrices as --dtype, which is the model's own BF16 or F16 if left out, and F16 for another; \
      vectors as F32; rows that have no whole blocks as F16. Blocks are coded as the Python package \
      gguf codes them. The directory needs config.json and tokenizer.json; a way of cutting text \
      that llama.cpp has no name for that peftool knows is an error.

      Of a LoRA adapter it makes a file for llama.cpp's --lora, in F32 unless --dtype says f16, \
      bf16 or q8_0. rsLoRA, alpha_pattern and rank_pattern become part of alpha and of the \
      tensors. What such a file cannot hold is an error: DoRA, biases, and whole tensors.
      """)

  @Argument(
    help: "A .gguf file, a folder with one model in GGUF, a model directory, or an adapter.",
    completion: .file(extensions: ["gguf"]))
  var path: String

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("Where the directory or, with .gguf, the file goes.", valueName: "out"),
    completion: .directory)
  var output: String

  @Option(
    help: ArgumentHelp(
      "Write tensors so: f32, f16 or bf16; in GGUF q8_0, q4_0, q4_1, q5_0 and q5_1, too.",
      valueName: "dtype"))
  var dtype: WrittenDType?

  @Option(
    help: ArgumentHelp(
      "For an adapter: the folder of its base, of which config.json is read.", valueName: "model"),
    completion: .directory)
  var base: String?

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
    case q8v0 = "q8_0"
    case q4v0 = "q4_0"
    case q4v1 = "q4_1"
    case q5v0 = "q5_0"
    case q5v1 = "q5_1"

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
      case .q8v0: .q8v0
      case .q4v0: .q4v0
      case .q4v1: .q4v1
      case .q5v0: .q5v0
      case .q5v1: .q5v1
      }
    }
  }

  private static let maximumThreadCount = 1024
  private static let shardByteCount = 5_000_000_000

  func validate() throws {
    if let threads, !(1...Self.maximumThreadCount).contains(threads) {
      throw ValidationError("--threads is \(threads), expected 1 to \(Self.maximumThreadCount)")
    }
  }

  func run() throws {
    let start = monotonicSeconds()
    let checkpoint = try Checkpoint(opening: path)
    let threads = threads ?? availableProcessorCount
    if output.hasSuffix(".gguf") {
      let writing =
        try checkpoint.isAdapter
        ? GGUFWriting(Adapter(opening: path), base: base, dtype: dtype?.dtype)
        : GGUFWriting(checkpoint, dtype: dtype?.dtype)
      let progress = ProgressLine("converting", totalByteCount: writing.byteCount, isQuiet: quiet)
      try writing.run(to: output, isForced: force, threads: threads) { progress.advance(by: $0) }
      progress.finish()
      try print(
        Result(
          tensorCount: writing.tensorCount, dtype: writing.dtype, byteCount: writing.byteCount,
          notes: writing.notes), monotonicSeconds() - start)
    } else {
      let conversion = try Conversion(
        checkpoint, dtype: dtype?.dtype, shardByteCount: shardSize ?? Self.shardByteCount)
      let progress = ProgressLine(
        "converting", totalByteCount: conversion.byteCount, isQuiet: quiet)
      try conversion.run(to: output, isForced: force, threads: threads) {
        progress.advance(by: $0)
      }
      progress.finish()
      try print(
        Result(
          tensorCount: conversion.tensorCount, dtype: conversion.dtype,
          byteCount: conversion.byteCount, notes: conversion.notes), monotonicSeconds() - start)
    }
  }

  /// What a conversion has come to.
  private struct Result {
    let tensorCount: Int
    let dtype: DType
    let byteCount: Int
    let notes: [String]
  }

  private func print(_ result: Result, _ seconds: Double) throws {
    if json {
      try StandardOutput.print(report(result, seconds).text(indent: 2) + "\n")
    } else if !quiet {
      try StandardOutput.print(text(result, seconds))
    }
  }

  private func text(_ result: Result, _ seconds: Double) -> String {
    var facts = Facts()
    facts.append("model", path.printable)
    facts.append("tensors", "\(result.tensorCount.groupedText), as \(result.dtype.rawValue)")
    for note in result.notes { facts.append("note", note) }
    facts.append(
      "written", "\(output.printable): \(result.byteCount.byteText) in \(seconds.durationText)")
    return facts.text(width: StandardOutput.width)
  }

  private func report(_ result: Result, _ seconds: Double) -> JSON {
    .object([
      .init("output", .string(output)),
      .init("model", .string(path)),
      .init("tensors", .number(result.tensorCount)),
      .init("dtype", .string(result.dtype.rawValue)),
      .init("bytes", .number(result.byteCount)),
      .init("seconds", .number(seconds)),
      .init("notes", .array(result.notes.map(JSON.string))),
    ])
  }
}
