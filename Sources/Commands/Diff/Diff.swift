import Adapters
import ArgumentParser
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Reports

/// `peftool diff`: how two checkpoints differ.
struct Diff: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compares two checkpoints tensor by tensor, two adapters by what they change.",
    discussion: """
      Pairs the tensors of A and B by name, whatever the sharding and the dtypes, and prints those \
      that differ, the worst first: the largest |a - b|, the relative difference \
      norm(a - b) / norm(b), the cosine of the angle between a and b, and how many elements are \
      not equal. Then tensors that only one of them has, other shapes, and as the last line the \
      verdict: 'identical', 'within tolerance' or 'different'. In a terminal the 20 worst are \
      shown, in a pipe all.

        peftool diff merged expected
        peftool diff merged expected --atol 1e-6 --rtol 1e-5

      Elements are compared by value: 0 equals -0, NaN equals NaN, and 1 in BF16 equals 1 in F32. \
      An element is within tolerance if |a - b| <= atol + rtol * |b|.

      An output layer (lm_head.weight) that one side does not store is compared with that side's \
      embedding if it has a config.json that does not say tie_word_embeddings: false. Other files \
      of a model directory are not compared.

      Two adapters of low-rank pairs, PEFT's, mlx-lm's or kohya's, are compared by their updates \
      s*B*A, which other factors may make as well. With a and b for the updates of a module: the \
      cosine of the angle between them, the ratio norm(a) / norm(b), the relative difference \
      norm(a - b) / norm(b), and how far the spaces agree to which they write ('out') and from \
      which they read ('in'): 1 where one holds the other, 0 where they are orthogonal. Norms are \
      of Frobenius; all comes from the factors, in f64. DoRA's magnitudes and lora_bias have \
      columns of their own, with their relative differences. With --base, where one of the adapters is \
      of DoRA, whole changes of the model, W' - W, are compared in place of updates, and magnitudes \
      are in them: LoRA and DoRA adapters that merge to the same weights do not differ. 'out' and \
      'in' are those of s*B*A all the same. A module is within tolerance if \
      norm(a - b) <= atol + rtol * norm(b). --rtol is 1e-6 here if left out: what factors in F32 \
      leave open. Tensors outside of pairs are compared as above.

        peftool diff math code
        peftool diff math code --factors
        peftool diff dora-a dora-b --base Llama-3.2-1B

      --factors compares adapters tensor by tensor, and so are those without such pairs. Settings \
      of adapter_config.json that change what the tensors mean are shown, and count as \
      differences, too; of updates those that give rank and scaling do not count, for they are in \
      them.

      Exit status: 0 identical or within tolerance; 1 different; 2 could not compare. \
      Formats/json-output.md describes what --json prints.
      """)

  @Argument(
    help: "A model, a checkpoint or an adapter: a file, an index or a directory.",
    completion: .file())
  var a: String

  @Argument(help: "What A is compared with.", completion: .file())
  var b: String

  @Option(help: "The absolute difference that an element may have, default 0.")
  var atol: Double?

  @Option(
    help: "The difference that an element may have relative to |b|, default 0; of updates 1e-6.")
  var rtol: Double?

  @Flag(help: "Compare the tensors of adapters, not the updates that they make.")
  var factors = false

  @Option(
    help: "The model that two adapters are for: compare their whole changes where one is of DoRA.",
    completion: .file())
  var base: String?

  @Flag(help: "No progress.")
  var quiet = false

  @Flag(help: "Print one JSON object instead.")
  var json = false

  func validate() throws {
    if factors, base != nil {
      throw ValidationError("--base is for whole changes, and --factors for tensors")
    }
    for (name, value) in [("--atol", atol), ("--rtol", rtol)] {
      if let value, !(value >= 0 && value.isFinite) {
        throw ValidationError("\(name) is \(value), expected a number of at least 0")
      }
    }
  }

  func run() throws {
    let (left, right) = (try Checkpoint(opening: a), try Checkpoint(opening: b))
    let tolerance = DiffTolerance(absolute: atol ?? 0, relative: rtol ?? 0)
    switch try pairs(left, right) {
    case .found(let first, let second):
      try OpenBLAS.prepare()
      let difference = try AdapterDifference(
        first, second, base: BaseModel(at: base),
        within: DiffTolerance(
          absolute: atol ?? 0, relative: rtol ?? AdapterDifference.defaultRelativeTolerance),
        ofElements: tolerance, threads: availableProcessorCount, isQuiet: quiet)
      try finish(difference.verdict, difference.report, difference.text)
    case .none(let reason):
      guard base == nil else {
        throw PeftoolError(
          .unsupported,
          "--base is for two adapters of low-rank pairs" + (reason.map { ": \($0)" } ?? ""), path: a
        )
      }
      var difference = try CheckpointDifference(
        left, right, within: tolerance, threads: availableProcessorCount, isQuiet: quiet)
      difference.note = reason.map { "compared tensor by tensor: \($0)" }
      try finish(difference.verdict, difference.report, difference.text)
    }
  }

  /// What is compared.
  private enum Pairs {
    /// The updates of two adapters.
    case found(AdapterDifference.Side, AdapterDifference.Side)
    /// Tensors; of two adapters why not their updates, unless the user wants it so.
    case none(reason: String?)
  }

  private func pairs(_ left: Checkpoint, _ right: Checkpoint) throws(PeftoolError) -> Pairs {
    guard !factors, try AdapterFormat(of: left) != nil, try AdapterFormat(of: right) != nil else {
      return .none(reason: nil)
    }
    do throws(PeftoolError) {
      let (first, second) = (try AdapterFormat.readPairs(a), try AdapterFormat.readPairs(b))
      return .found(
        .init(checkpoint: left, format: first.format, adapter: first.adapter),
        .init(checkpoint: right, format: second.format, adapter: second.adapter))
    } catch {
      guard error.kind != .io else { throw error }
      return .none(reason: error.description)
    }
  }

  private func finish(
    _ verdict: CheckpointDifference.Verdict, _ report: JSON,
    _ text: (_ width: Int, _ tableWidth: Int?) -> String
  ) throws {
    try StandardOutput.print(
      json
        ? report.text(indent: 2) + "\n"
        : text(StandardOutput.width, StandardOutput.terminalWidth))
    if verdict == .different { throw ExitCode(1) }
  }
}
