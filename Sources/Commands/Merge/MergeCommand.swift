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
      licence) are carried along. OUT is whole or absent, whatever happens.

        peftool merge Llama-3.2-1B my-adapter -o merged
        peftool merge Llama-3.2-1B math code --weights 0.7,-0.5 -o mixed
        peftool merge Llama-3.2-1B my-adapter -o - | sha256sum

      OUT is a directory, one file where it ends in .safetensors, or - for one safetensors stream \
      to standard output. A base in PyTorch files becomes one in safetensors, its shards likewise.

      An adapter is a directory with adapter_config.json and adapter_model.safetensors, or \
      adapter_model.bin, as PEFT saves them: LoRA, rsLoRA, DoRA, AdaLoRA, IA3 or trainable tokens, with biases, saved \
      modules, target_parameters and layer_replication. A key that matches nothing, a wrong rank \
      or shape, and an adapter whose base was changed at its start (PiSSA, OLoRA, CorDA, LoftQ) \
      are errors.

      --weights: a weight multiplies the adapter's whole change W' - W, for LoRA and DoRA alike, so \
      that 0 gives the base. Several adapters make one sum, rounded once. --rounding peft merges \
      one after the other and rounds after each, as PEFT does; peft-safe is PEFT's safe_merge.

      An adapter on one end of tied embeddings unties them: both are written, and \
      tie_word_embeddings becomes false. PEFT leaves them tied, and its result is wrong.

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

  @Option(help: "When sums are rounded to the base's dtype: once, peft or peft-safe.")
  var rounding = Rounding.once

  @Option(
    help: ArgumentHelp("The number of threads; the bytes do not depend on it.", valueName: "n"))
  var threads: Int?

  @Option(
    help: ArgumentHelp(
      "Write new shards of at most this size, such as 5GB or 500MB.", valueName: "size"),
    transform: { try ShardPlan.byteCount($0) })
  var shardSize: Int?

  @Option(
    help: ArgumentHelp(
      "Read adapter keys that begin with FROM as if they began with TO, such as "
        + "base_model.model.language_model.=base_model.model.; repeatable.", valueName: "from=to"))
  var keyPrefix: [KeyPrefix] = []

  @Flag(help: "Replace OUT where it is there already.")
  var force = false

  @Flag(help: "Merge an adapter that fits only a base changed at its start (PiSSA and the like).")
  var allowMutatedBase = false

  @Flag(help: "Let NaN and infinity in the result pass, and count them.")
  var allowNonfinite = false

  @Flag(help: "No progress and no summary.")
  var quiet = false

  @Flag(help: "Print one JSON object for the summary.")
  var json = false

  func validate() throws {
    guard !adapters.isEmpty else {
      throw ValidationError("Missing expected argument '<adapter> ...'")
    }
    if let weights, weights.values.count != adapters.count {
      throw ValidationError(
        "--weights has \(weights.values.count.text(of: "number")) for "
          + adapters.count.text(of: "adapter"))
    }
    if let threads, !(1...Self.maximumThreadCount).contains(threads) {
      throw ValidationError("--threads is \(threads), expected 1 to \(Self.maximumThreadCount)")
    }
    if destination.isStream, StandardOutput.terminalWidth != nil {
      throw ValidationError("-o - writes a model, and standard output is a terminal")
    }
    if let ending = destination.otherEnding {
      throw ValidationError(
        "-o ends in \(ending), and merge writes safetensors: name a directory or a .safetensors file"
      )
    }
    if shardSize != nil, destination.isSingle {
      throw ValidationError("--shard-size is for a directory, -o names one file")
    }
  }

  func run() throws {
    let start = monotonicSeconds()
    let checkpoint = try Checkpoint(opening: base)
    let adapters = try adapters.map {
      try Adapter(opening: $0, renaming: keyPrefix.map(\.renaming))
    }
    var options = MergePlan.Options(
      weights: weights?.values ?? adapters.map { _ in 1 })
    options.rounding = rounding
    options.dtype = dtype
    options.allowsMutatedBase = allowMutatedBase
    let plan = try MergePlan(checkpoint, adapters, options)
    let merge = try Merge(plan, to: destination.place, shardByteCount: shardSize)

    var running = Merge.Options()
    running.isForced = force
    running.allowsNonfinite = allowNonfinite
    running.threads = threads
    let progress = ProgressLine("merging", totalByteCount: merge.byteCount, isQuiet: quiet)
    let summary = try merge.run(running) { progress.advance(by: $0) }
    progress.finish()

    let report = MergeReport(
      plan: plan, summary: summary, output: output, seconds: monotonicSeconds() - start,
      writesConfig: merge.writesConfig)
    if json {
      try print(report.json.text(indent: 2) + "\n")
    } else if !quiet {
      try print(report.text(width: StandardOutput.width))
    }
  }

  private static let maximumThreadCount = 1024

  /// Prints the summary where it is not in the way of the output.
  private func print(_ text: String) throws(PeftoolError) {
    if destination.isStream {
      writeToStandardError(text)
    } else {
      try StandardOutput.print(text)
    }
  }

  private var destination: Output { Output(output) }

  private static func dtype(_ text: String) throws -> DType {
    let names: [String: DType] = [
      "FLOAT32": .f32, "FLOAT16": .f16, "BFLOAT16": .bf16, "FLOAT64": .f64,
    ]
    let upper = text.uppercased()
    guard let dtype = DType(rawValue: upper) ?? names[upper], dtype.isComputable else {
      throw ValidationError(
        "'\(text.printable)' is none of F32, F16, BF16, F8_E4M3, F8_E5M2, F64")
    }
    return dtype
  }
}

/// What `-o` names.
private struct Output {
  let place: Merge.Destination

  init(_ text: String) {
    place =
      if text == "-" {
        .stream
      } else if text.hasSuffix(".safetensors") {
        .file(text)
      } else {
        .directory(text)
      }
  }

  var isStream: Bool { if case .stream = place { true } else { false } }
  /// The ending of another format's files, or of safetensors in capitals.
  var otherEnding: String? {
    guard case .directory(let path) = place else { return nil }
    let endings = [".gguf", ".bin", ".pt", ".pth", ".ckpt", ".zst", ".safetensors"]
    return endings.first(where: path.lowercased().hasSuffix)
  }
  var isSingle: Bool { if case .directory = place { false } else { true } }
}

/// The numbers of `--weights`.
struct Weights: ExpressibleByArgument {
  let values: [Double]

  init?(argument: String) {
    var values: [Double] = []
    for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
      guard let value = Double(part), value.isFinite else { return nil }
      values.append(value)
    }
    self.values = values
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
