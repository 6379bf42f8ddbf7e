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
  /// The steps that have been made, those before this call with them.
  let stepCount: Int
  let evaluations: [(step: Int, loss: Double)]
  let best: (step: Int, loss: Double)?
  let seconds: Double
  let tokensPerSecond: Double
  /// The ranks that the method has left each layer.
  let ranks: [Int]?
  /// What each layer has got in a search for ranks.
  let findings: [RankSearch.Finding]
  /// What rounding a trained model to 16 bits has taken of the change, ‖rounding‖ / ‖change‖.
  var roundingLoss: Double?

  /// The summary for a person.
  func text(width: Int) -> String {
    var facts = Facts()
    for (label, value) in lines { facts.append(label, value) }
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
    if isWritten, best?.step == 0 {
      facts.append(
        "note",
        "no evaluation was better than that before the first step: what is written is what "
          + "training began with")
    }
    if let roundingLoss {
      facts.append(
        "lost",
        "\((100 * roundingLoss).measureText) % of the change by rounding; --dtype f32 keeps it")
    }
    if isWritten {
      facts.append("written", "\(output.printable) in \(seconds.durationText)")
    }
    return facts.text(width: width)
  }

  /// What was done and what came of it, for the summary, the page and the model card.
  var lines: [(label: String, value: String)] {
    var lines = plan.methodLines
    if let ranks, let least = ranks.min(), let most = ranks.max() {
      let mean = Double(ranks.reduce(0, +)) / Double(ranks.count)
      lines.append(
        ("ranks", "\(least) to \(most) are left, \(mean.fixed(1)) in the mean of layers"))
    }
    lines += rankLines
    lines.append(("data", plan.dataText))
    if let first, let last {
      var text = "\(first.loss.fixed(4)) in step \(first.number)"
      if last.number > first.number {
        text += ", \(last.loss.fixed(4)) in step \(last.number)"
      }
      lines.append(("loss", text + plan.lossAddition))
    }
    if let before = evaluations.first, let best {
      lines.append(
        (
          "evaluation",
          "\(before.loss.fixed(4)) after step \(before.step), at best \(best.loss.fixed(4)) after "
            + "step \(best.step)"
        ))
    }
    lines.append(("speed", "\(tokensPerSecond.fixed(0)) tokens/s"))
    return lines
  }

  /// What layers of a kind have got in the mean, where ranks were searched for.
  private var rankLines: [(label: String, value: String)] {
    var kinds: [String] = []
    var own: [String: [RankSearch.Finding]] = [:]
    for finding in findings {
      let kind = String(finding.module.split(separator: ".").last ?? "")
      if own[kind] == nil { kinds.append(kind) }
      own[kind, default: []].append(finding)
    }
    return kinds.map { kind in
      let found = own[kind] ?? []
      func mean(_ value: (RankSearch.Finding) -> Double) -> Double {
        found.reduce(0) { $0 + value($1) } / Double(found.count)
      }
      return (
        "rank of \(kind.printable)",
        "\(mean { Double($0.rank) }.fixed(1)) in the mean, which keep "
          + "\(mean(\.energy).percentText) of the energy; the effective rank was "
          + "\(mean(\.effectiveRank).fixed(1)), the norm \(mean(\.norm).measureText)"
      )
    }
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

  /// A page for a browser: curves of all steps in the log, samples as rows of a prompt, what the
  /// example goes on with, and what the model did before and after, and the settings.
  func page(log: [JSON], samples: [[String]]) throws(PeftoolError) -> String {
    var page = Page(
      "\(plan.method): \(output)",
      facts: [("model", plan.model)] + lines + [("time", seconds.durationText)])
    var losses: [(x: Double, y: Double)] = []
    var evaluated: [(x: Double, y: Double)] = []
    var rates: [(x: Double, y: Double)] = []
    for entry in log {
      let step = Double(try entry.int(at: "step"))
      if entry["eval_loss"] != nil {
        evaluated.append((step, try entry.double(at: "eval_loss")))
      } else {
        losses.append((step, try entry.double(at: "loss")))
        rates.append((step, try entry.double(at: "learning_rate")))
      }
    }
    page.append(
      "Loss",
      markup: LineChart(
        "step", [.init("training", losses), .init("evaluation", evaluated, isMarked: true)]
      ).markup)
    page.append("Learning rate", markup: LineChart("step", [.init("rate", rates)]).markup)
    if !samples.isEmpty {
      page.append(
        "Samples", columns: ["prompt", "example", "before training", "after"],
        rows: samples.map { $0.map(\.inOneLine) })
    }
    if !findings.isEmpty {
      page.append(
        "Ranks", columns: ["layer", "rank", "energy kept", "effective rank", "norm"],
        rows: findings.map {
          [
            $0.module, String($0.rank), $0.energy.percentText, $0.effectiveRank.fixed(1),
            $0.norm.measureText,
          ]
        })
    }
    let settings = try plan.fingerprint.object(named: "settings")
    page.append(
      "Settings", columns: ["option", "value"],
      rows: settings.map { [$0.key, $0.value.summary] })
    return page.text
  }

  /// The summary for a program.
  var json: JSON {
    let numbers: (Double?) -> JSON = { $0.map { .number($0) } ?? .null }
    return .object([
      .init("output", .string(output)), .init("ending", endingJSON),
      .init("steps", .number(stepCount)),
      .init("firstLoss", numbers(first?.loss)),
      .init("lastLoss", numbers(last?.loss)),
      .init(
        "evaluations",
        .array(
          evaluations.map {
            .object([.init("step", .number($0.step)), .init("loss", .number($0.loss))])
          })),
      .init("bestStep", best.map { .number($0.step) } ?? .null),
      .init("bestLoss", numbers(best?.loss)),
      .init("ranks", ranks.map { .array($0.map { .number($0) }) } ?? .null),
      .init("rankSearch", findings.isEmpty ? .null : .array(findings.map(\.json))),
      .init("roundingLoss", numbers(roundingLoss)),
      .init("tokensPerSecond", .number(tokensPerSecond)), .init("seconds", .number(seconds)),
    ])
  }
}

extension RankSearch.Finding {
  fileprivate var json: JSON {
    .object([
      .init("module", .string(module)), .init("rank", .number(rank)),
      .init("energy", .number(energy)), .init("effectiveRank", .number(effectiveRank)),
      .init("norm", .number(norm)),
    ])
  }
}

extension String {
  /// Newlines as a sign, for a cell of a table.
  fileprivate var inOneLine: String { String(map { $0.isNewline ? "↵" : $0 }) }
}
