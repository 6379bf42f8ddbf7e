import ArgumentParser
import Models
import Training

/// How an adapter is trained.
struct TrainingOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp("How often the data is gone through; once if left out.", valueName: "n"))
  var epochs: Double?

  @Option(help: ArgumentHelp("Steps in all, instead of --epochs.", valueName: "n"))
  var maxSteps: Int?

  @Option(help: ArgumentHelp("Rows that go through the model together.", valueName: "n"))
  var batchSize = 4

  @Option(
    name: .customLong("gradient-accumulation"),
    help: ArgumentHelp("Batches a step.", valueName: "n"))
  var accumulation = 1

  @Option(
    help: ArgumentHelp(
      "The highest learning rate; if left out 2e-4, 1e-4 of galore and 2e-5 of full.",
      valueName: "rate"))
  var learningRate: Double?

  @Option(
    help: ArgumentHelp(
      "How the rate goes: \(Schedule.Kind.allCases.map(\.rawValue).joined(separator: ", ")).",
      valueName: "kind"))
  var schedule = Schedule.Kind.linear

  @Option(
    help: ArgumentHelp(
      "The steps in which the rate rises, or their share of all if less than 1.", valueName: "n"))
  var warmup = 0.0

  /// The optimizers, by the names that transformers has for them.
  enum Optimizer: String, CaseIterable, ExpressibleByArgument {
    case adamw
    case adamwEightBit = "adamw_8bit"
  }

  @Option(
    help: ArgumentHelp(
      "What moves the numbers: adamw, or adamw_8bit, which keeps its moments in 8 bits.",
      valueName: "name"))
  var optimizer = Optimizer.adamw

  @Option(help: ArgumentHelp("AdamW's weight decay.", valueName: "x"))
  var weightDecay = 0.0

  @Option(
    name: .customLong("max-grad-norm"),
    help: ArgumentHelp("The norm that gradients are clipped to; 0 for none.", valueName: "x"))
  var maximumGradientNorm = 1.0

  @Option(
    name: .customLong("loraplus-ratio"),
    help: ArgumentHelp("What B's learning rate is multiplied by (LoRA+).", valueName: "x"))
  var ratio = 1.0

  @Option(help: ArgumentHelp("What the start and the order are drawn from.", valueName: "n"))
  var seed: UInt64 = 0

  @Option(
    name: .customLong("eval-every"),
    help: ArgumentHelp("Evaluate every so many steps, besides first and last.", valueName: "n"))
  var evaluateEvery: Int?

  @Option(
    name: .customLong("early-stop"),
    help: ArgumentHelp("Stop after so many evaluations that are no better.", valueName: "n"))
  var patience: Int?

  @Option(help: ArgumentHelp("Write a checkpoint every so many steps.", valueName: "n"))
  var saveEvery: Int?

  /// Whether activations are computed a second time.
  enum Checkpointing: String, CaseIterable, ExpressibleByArgument {
    case auto, on, off

    /// What is kept, where all of a pass takes so many bytes of those that are free.
    func keeping(free: Int?, _ byteCount: Int) -> LossPass.Keeping {
      switch self {
      case .on: .inputs
      case .off: .everything
      case .auto: if let free, byteCount > free / 10 * 9 { .inputs } else { .everything }
      }
    }
  }

  @Option(
    name: .customLong("checkpoint-activations"),
    help: ArgumentHelp(
      "Compute activations twice to save memory: on, off, or auto, which is on where memory is "
        + "short.", valueName: "when"))
  var checkpointing = Checkpointing.auto

  func validate() throws {
    if epochs != nil, maxSteps != nil {
      throw ValidationError("--epochs and --max-steps both say how long: give one of them")
    }
    let counts: [(String, Int?)] = [
      ("--max-steps", maxSteps), ("--batch-size", batchSize),
      ("--gradient-accumulation", accumulation), ("--eval-every", evaluateEvery),
      ("--early-stop", patience), ("--save-every", saveEvery),
    ]
    for (name, count) in counts {
      if let count, !(1...1_000_000_000).contains(count) {
        throw ValidationError("\(name) is \(count), expected 1 to 1000000000")
      }
    }
    for (name, value) in [("--epochs", epochs ?? 1), ("--warmup", warmup)] where value > 1e6 {
      throw ValidationError("\(name) is \(value), expected at most 1000000")
    }
    for (name, value) in [
      ("--epochs", epochs ?? 1), ("--learning-rate", learningRate ?? 1),
      ("--loraplus-ratio", ratio),
    ] where !(value > 0 && value.isFinite) {
      throw ValidationError("\(name) is \(value), expected a number above 0")
    }
    for (name, value) in [
      ("--warmup", warmup), ("--weight-decay", weightDecay),
      ("--max-grad-norm", maximumGradientNorm),
    ] where !(value >= 0 && value.isFinite) {
      throw ValidationError("\(name) is \(value), expected a number, 0 at least")
    }
  }
}

extension Schedule.Kind: ExpressibleByArgument {}
