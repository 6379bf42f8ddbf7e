import ArgumentParser
import Checkpoints
import Files
import JSON
import LinearAlgebra
import Models
import Training

/// `peftool plan`: which method of training fits a machine and an aim.
struct PlanCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "plan",
    abstract: "Tells what each method of training takes, and which one fits.",
    discussion: """
      Reads the config.json of MODEL, and of its weights, if they are there, no more than their type; \
      nothing is written.

        peftool plan SmolLM2-135M --max-length 256 --batch-size 4 --examples 2000
        peftool plan SmolLM2-135M --memory 8GB --aim model
        peftool plan SmolLM2-135M/config.json --gpu --memory 24GB --max-length 256

      Of each method: what is trained, the memory at the peak by its parts, the largest batch for which \
      it is there, the time of a step and of an epoch, the bytes that are written, what it costs in \
      use, and when to choose it. Memory is what 'finetune' takes, by the same arithmetic as its \
      --dry-run, and 24 MB for the program; of GaLore the work of finding subspaces counts to the \
      rest. Activations are computed twice where that alone fits, as finetune decides, for the largest \
      batch too. Of LongLoRA the embeddings and norms are trained besides; its attention's groups are a \
      quarter of the text. AdaLoRA begins with half as much again of --rank, and LoRA whose ranks are \
      found with twice that; written are those of --rank. What a model rules out is left out, and why.

      The method that is recommended is the first one for --aim that fits, one that keeps its \
      activations before one that computes them twice: adapter has LoRA, QLoRA and LoRA-FA; quality \
      DoRA and QDoRA; ranks AdaLoRA, LoRA with --rank auto and SHiRA; int4 QA-LoRA; long LongLoRA; \
      model full, full in 8 bits and GaLore. The commands for it are printed, with train.jsonl for the \
      data. Which is better on a task, nobody knows before a loss on data held out: 'evaluate' tells.

      Time follows from the operations of a step and the rate of products of matrices, which is \
      measured for a quarter of a second, and from the bytes that go through memory; --flops tells the \
      rate instead, and --no-measure leaves time out. GaLore's subspaces, found every 200 steps, count \
      in an epoch and not in a step.

      --gpu has the same table for training on a GPU by other programs, from byte counts that were \
      published and not measured here. Frozen weights take 2 bytes, in NF4 with double \
      quantization 4.127 bits (QLoRA, section 3), in LLM.int8 8, and in INT4 4 and 32 a \
      group. Adapters are f32 with gradient and moments of 4 bytes each, as in PEFT. A model that \
      is trained takes 2 bytes a number, 2 of gradient and 2 for each moment, which torch keeps in \
      the weights' type, or 1 in 8 bits: for LLaMA-7B 14 GB of weights and 42 GB of gradients and \
      moments (GaLore, section 1); in mixed precision with f32 copies it would be 16 bytes. GaLore \
      has one gradient at a time (section 4.3), a projector of 2 bytes and moments of r * max(m, \
      n); with 8 bits and --galore-rank 1024 LLaMA-7B fits in 24 GB, as its abstract says. LoRA-FA \
      keeps no input of A (section 3.2). SHiRA has no row there. Activations are 2 bytes for what \
      torch keeps with fused attention. CUDA's own memory, a gigabyte or so, comes to it.

      Formats/json-output.md describes what --json prints.
      """)

  @Argument(help: "The model's folder, or its config.json.", completion: .file())
  var model: String

  @Option(
    help: ArgumentHelp(
      "The tokens of a text; 1024 or the model's most if left out.", valueName: "n"))
  var maxLength: Int?

  @Option(help: ArgumentHelp("Rows that go through the model together.", valueName: "n"))
  var batchSize = 4

  @Option(
    help: ArgumentHelp(
      "The memory that there is, such as 8GB; what is free if left out, and of --gpu no limit.",
      valueName: "size"),
    transform: { try ShardPlan.byteCount($0) })
  var memory: Int?

  @Option(help: ArgumentHelp("The rank of adapters.", valueName: "r"))
  var rank = 8

  @Option(help: ArgumentHelp("The rank of GaLore.", valueName: "r"))
  var galoreRank = 128

  @Option(
    help: ArgumentHelp(
      "What is wanted: \(PlannedMethod.Aim.allCases.map(\.rawValue).joined(separator: ", ")).",
      valueName: "aim"))
  var aim = PlannedMethod.Aim.adapter

  @Option(
    name: .customLong("checkpoint-activations"),
    help: ArgumentHelp(
      "Compute activations twice to save memory: on, off, or auto, which is on where memory is "
        + "short.", valueName: "when"))
  var checkpointing = TrainingOptions.Checkpointing.auto

  @Option(help: ArgumentHelp("The texts of an epoch.", valueName: "n"))
  var examples: Int?

  @Option(help: ArgumentHelp("The tokens of an epoch, instead of --examples.", valueName: "n"))
  var tokens: Int?

  @Option(
    help: ArgumentHelp(
      "The operations a second of products of matrices, instead of measuring them.",
      valueName: "rate"))
  var flops: Double?

  @Flag(help: "Measure nothing, and leave time out.")
  var noMeasure = false

  @Flag(help: "Plan for a GPU, by published byte counts.")
  var gpu = false

  @Option(help: ArgumentHelp("The number of threads.", valueName: "n"))
  var threads: Int?

  @Flag(help: "Print one JSON object.")
  var json = false

  private static let countRange = 1...1_000_000_000_000

  func validate() throws {
    if let threads { try RunOptions.validate(threads: threads) }
    let counts: [(String, Int?, ClosedRange<Int>)] = [
      ("--max-length", maxLength, 2...1 << 20), ("--batch-size", batchSize, 1...1_000_000_000),
      ("--rank", rank, AdapterDesignOptions.rankRange),
      ("--galore-rank", galoreRank, AdapterDesignOptions.rankRange),
      ("--examples", examples, Self.countRange), ("--tokens", tokens, Self.countRange),
    ]
    for (name, count, range) in counts {
      if let count, !range.contains(count) {
        throw ValidationError(
          "\(name) is \(count), expected \(range.lowerBound) to \(range.upperBound)")
      }
    }
    if let flops, !(flops >= 1 && flops <= 1e18) {
      throw ValidationError("--flops is \(flops), expected 1 to 1e18")
    }
    let excluded: [(String, Bool)] = [
      ("--examples and --tokens", examples != nil && tokens != nil),
      ("--flops and --no-measure", flops != nil && noMeasure),
      ("--flops and --gpu", flops != nil && gpu),
      // No time is planned there.
      ("--examples and --gpu", examples != nil && gpu),
      ("--tokens and --gpu", tokens != nil && gpu),
    ]
    if let (names, _) = excluded.first(where: \.1) {
      throw ValidationError("\(names) exclude each other")
    }
  }

  func run() throws {
    let plan = try plan()
    try StandardOutput.print(
      json ? plan.json.text(indent: 2) + "\n" : plan.text(width: StandardOutput.width))
  }

  /// What each method takes.
  ///
  /// - Throws: as `PlannedBase` and `TrainingPlan`.
  func plan() throws(PeftoolError) -> TrainingPlan {
    let base = try PlannedBase(opening: model)
    let configuration = base.configuration
    let least = configuration.linearGroups.joined().map { min($0.outputs, $0.inputs) }.min() ?? 1
    let length = maxLength ?? min(TrainingDataReader.defaultLength, configuration.contextLength)
    let count = threads ?? availableProcessorCount
    var settings = TrainingPlan.Settings(
      length: length, rows: batchSize,
      ranks: .init(adapter: rank, galore: galoreRank, most: least), threads: count,
      memory: memory ?? (gpu ? nil : SystemMemory.availableByteCount),
      checkpointing: checkpointing, aim: aim, isOnGPU: gpu)
    settings.stepsPerEpoch =
      examples.map { ($0 + batchSize - 1) / batchSize }
      ?? tokens.map { max(1, $0 / max(1, batchSize * length)) }
    if let flops {
      settings.rates = StepCost.Rates(
        operations: flops, bytes: StepCost.Rates.assumedBytes)
    }
    let plan = try TrainingPlan(base, settings)
    guard flops == nil, !noMeasure, !gpu else { return plan }
    settings.rates = .measured(by: ThreadTeam(count: count))
    return try TrainingPlan(base, settings)
  }
}

extension PlannedMethod.Aim: ExpressibleByArgument {}
