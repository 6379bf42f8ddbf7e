import ArgumentParser
import Files
import JSON
import LinearAlgebra
import Reports

/// `peftool verify`: what is wrong with a checkpoint.
struct Verify: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Lists everything that is wrong with a model, a checkpoint or an adapter.",
    discussion: """
      Reads all of PATH and prints a line for each fault, then how many there are; where there is \
      none, one line that says what was looked at.

        peftool verify Llama-3.2-1B
        peftool verify my-adapter --base Llama-3.2-1B

      Of files: headers that break the format's rules, missing and superfluous bytes; tensors that \
      are not where the index says, twice or nowhere; missing shards; and in every tensor NaN and \
      infinity, counted. Of a model directory also where config.json and the tensors contradict \
      each other: number of layers, size of the vocabulary, embeddings that are not tied; and of a \
      quantized one (bitsandbytes, MLX, GPTQ, AWQ, HQQ) scales, zero points and states that are missing or \
      do not fit the codes, and inputs of groups that there are not. \
      Of a GGUF model where its metadata and the tensors contradict each other.

      Of an adapter: a configuration that is not valid, names that are not PEFT's, halves without \
      the other, ranks that are not the configuration's, tensors for modules that target_modules \
      does not name. With --base also whether every module is found in the base and fits it, so \
      that merge will take it. Of one of mlx-lm or kohya whether convert takes it.

      Exit status: 0 no fault; 1 at least one; 2 PATH is not there or nothing that can be \
      verified. Formats/json-output.md describes what --json prints.
      """)

  @Argument(
    help: "A file of tensors (safetensors, GGUF, PyTorch), an index of shards, or a folder.",
    completion: .file())
  var path: String

  @Option(help: "The model that an adapter is for.", completion: .file())
  var base: String?

  @Flag(help: "No progress.")
  var quiet = false

  @Flag(help: "Print one JSON object instead.")
  var json = false

  func run() throws {
    let verification = try Verification(
      path, base: base, threads: availableProcessorCount, isQuiet: quiet)
    try StandardOutput.print(
      json
        ? verification.report.text(indent: 2) + "\n"
        : verification.text(width: StandardOutput.terminalWidth))
    if !verification.faults.isEmpty { throw ExitCode(1) }
  }
}

extension Verification {
  /// The faults for a reader, one a line and whole, then how many there are.
  ///
  /// The last line is folded at the width.
  func text(width: Int?) -> String {
    let what = isAdapter ? "adapter \(path.printable)" : path.printable
    let summary =
      faults.isEmpty
      ? "no faults in \(what): \(checked.joined(separator: ", "))"
      : "\(faults.count.text(of: "fault")) in \(what)"
    let lines = faults.map(\.description) + notes.map { "note: \($0)" }
    return (lines + summary.folded(width: width ?? .max)).map { $0 + "\n" }.joined()
  }

  /// The faults as `--json` prints them.
  var report: JSON {
    func string(_ text: String?) -> JSON { text.map { .string($0) } ?? .null }
    return .object([
      .init("path", .string(path)),
      .init("kind", .string(isAdapter ? "adapter" : "model")),
      .init("ok", .bool(faults.isEmpty)),
      .init(
        "faults",
        .array(
          faults.map {
            .object([
              .init("file", string($0.path)),
              .init("tensor", string($0.tensor)),
              .init("offset", $0.offset.map { .number($0) } ?? .null),
              .init("reason", .string($0.reason)),
            ])
          })),
      .init("notes", .array(notes.map { .string($0) })),
      .init("checked", .array(checked.map { .string($0) })),
      .init("tensors", .number(tensorCount)),
      .init("bytes", .number(byteCount)),
    ])
  }
}
