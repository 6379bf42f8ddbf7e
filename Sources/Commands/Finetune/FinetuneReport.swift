import Files
import JSON
import Reports
import Training

/// What a run of `finetune` has done.
struct FinetuneReport {
  let output: String
  let ending: TrainingRun.Ending
  let plan: FinetunePlan
  let first: Trainer.Step?
  let last: Trainer.Step?
  let evaluations: [(step: Int, loss: Double)]
  let best: (step: Int, loss: Double)?
  let seconds: Double
  let tokensPerSecond: Double

  /// The summary for a person.
  func text(width: Int) -> String {
    var facts = Facts()
    facts.append("adapter", "\(plan.method) on \(plan.modules.groupedText) layers")
    facts.append("data", plan.dataText)
    if let first, let last {
      facts.append(
        "loss",
        "\(first.loss.fixed(4)) in step \(first.number), \(last.loss.fixed(4)) in step "
          + "\(last.number)")
    }
    if let before = evaluations.first, let best {
      facts.append(
        "evaluation",
        "\(before.loss.fixed(4)) after step \(before.step), at best \(best.loss.fixed(4)) after "
          + "step \(best.step)")
    }
    facts.append("speed", "\(tokensPerSecond.fixed(0)) tokens/s")
    switch ending {
    case .done: break
    case .stoppedEarly(let step):
      facts.append("note", "stopped after step \(step): evaluations were no better any more")
    case .interrupted(let step):
      facts.append(
        "note",
        "interrupted after step \(step) of \(plan.stepCount), which is saved: the same command "
          + "with --resume goes on from there")
    }
    if isWritten {
      facts.append("written", "\(output.printable) in \(seconds.durationText)")
    }
    return facts.text(width: width)
  }

  private var isWritten: Bool {
    if case .interrupted = ending { false } else { true }
  }

  private var endingJSON: JSON {
    switch ending {
    case .done: .string("done")
    case .stoppedEarly: .string("early")
    case .interrupted: .string("interrupted")
    }
  }

  /// The summary for a program.
  var json: JSON {
    .object([
      .init("output", .string(output)), .init("ending", endingJSON),
      .init("steps", .number(last?.number ?? 0)),
      .init("firstLoss", first.map { .number($0.loss) } ?? .null),
      .init("lastLoss", last.map { .number($0.loss) } ?? .null),
      .init(
        "evaluations",
        .array(
          evaluations.map {
            .object([.init("step", .number($0.step)), .init("loss", .number($0.loss))])
          })),
      .init("bestStep", best.map { .number($0.step) } ?? .null),
      .init("bestLoss", best.map { .number($0.loss) } ?? .null),
      .init("tokensPerSecond", .number(tokensPerSecond)), .init("seconds", .number(seconds)),
    ])
  }
}
