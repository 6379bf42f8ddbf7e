import Files
import JSON
import Models
import Reports
import Tensors
import Training

extension TrainingPlan {
  /// The plan for a person: memory, time, when to choose what, and the commands.
  func text(width: Int) -> String {
    var facts = Facts()
    facts.append("model", modelText)
    facts.append(
      "batch",
      "\(settings.rows.text(of: "text")) of \(settings.length.text(of: "token"))")
    facts.append("memory", memoryText)
    facts.append("time", timeText)
    for note in notes { facts.append("left out", note) }
    var reasons = Facts()
    for (place, run) in runs.enumerated() {
      reasons.append(name(place), run.method.reason + " In use: " + run.usage + ".")
    }
    var text = facts.text(width: width) + "\n" + memoryTable.text(width: nil) + "\n"
    text += otherTable.text(width: nil) + "\n" + reasons.text(width: width) + "\n"
    return text + recommendation(width: width)
  }

  /// The methods that are not in the table, those of a reason together.
  private var notes: [String] {
    var notes: [(names: String, reason: String)] = []
    for (method, reason) in leftOut {
      if let place = notes.firstIndex(where: { $0.reason == reason }) {
        notes[place].names += ", " + method.name
      } else {
        notes.append((method.name, reason))
      }
    }
    return notes.map { "\($0.names): the model \($0.reason)" }
  }

  private var modelText: String {
    let configuration = base.configuration
    let count =
      configuration.layerElementCount
      + (configuration.isTied ? 1 : 2) * configuration.tableElementCount
    let form =
      switch base.form {
      case .numbers: base.dtype.rawValue
      case .nf4: "4 bits"
      case .int8: "8 bits"
      case .groups: "INT4 by groups"
      }
    return "\(base.path.printable), \(configuration.family.rawValue), \(count.countText) weights "
      + "in \(form)"
  }

  private var memoryText: String {
    let limit = settings.memory.map { "\($0.byteText) there" } ?? "no limit told"
    guard settings.isOnGPU else { return limit }
    return limit + "; of a GPU by published byte counts (peftool plan --help), not measured"
  }

  private var timeText: String? {
    guard let rates = settings.rates else { return nil }
    return "by \((rates.operations / 1e9).fixed(0)) GFLOP/s of products and "
      + "\(rates.bytes.rateText) of memory"
  }

  /// A method's name, with a star where it is recommended.
  private func name(_ place: Int) -> String {
    runs[place].method.name + (place == recommended ? " *" : "")
  }

  private var memoryTable: Table {
    var table = Table(
      [.init("method")]
        + ["trained", "weights", "activations", "gradients", "optimizer", "rest", "peak"]
        .map { .init($0, .right) } + [.init("fits")])
    for (place, run) in runs.enumerated() {
      let memory = run.memory
      let parts = [
        memory.weights, memory.activations, memory.gradients, memory.optimizer, memory.rest,
        memory.total,
      ]
      table.append(
        [name(place), run.parameterCount.countText] + parts.map(\.byteText)
          + [run.fits.map { $0 ? "yes" : "no" } ?? "-"])
    }
    return table
  }

  private var otherTable: Table {
    var table = Table([
      .init("method"), .init("activations"), .init("largest batch", .right),
      .init("a step", .right), .init("an epoch", .right), .init("written", .right),
    ])
    for (place, run) in runs.enumerated() {
      table.append([
        name(place), run.activationsText, run.largestBatch.map { $0.groupedText } ?? "-",
        run.seconds.step.map(\.durationText) ?? "-",
        run.seconds.epoch.map(\.durationText) ?? "-", run.outputByteCount.byteText,
      ])
    }
    return table
  }

  private func recommendation(width: Int) -> String {
    guard let recommended else {
      return
        ("No method for --aim \(settings.aim.rawValue) fits: a smaller --batch-size or --max-length "
        + "takes less, or another --aim.").folded(width: width).joined(separator: "\n") + "\n"
    }
    let head =
      "* \(runs[recommended].method.name) is recommended for --aim \(settings.aim.rawValue)"
    return ([head + (commands.isEmpty ? "" : ":")] + commands.map { "  " + $0 })
      .joined(separator: "\n") + "\n"
  }

  /// The plan for a program.
  var json: JSON {
    .object([
      .init("model", .string(base.path)),
      .init("device", .string(settings.isOnGPU ? "gpu" : "cpu")),
      .init("family", .string(base.configuration.family.rawValue)),
      .init("dtype", .string(base.dtype.rawValue)), .init("aim", .string(settings.aim.rawValue)),
      .init("rows", .number(settings.rows)), .init("maxLength", .number(settings.length)),
      .init("memoryBytes", settings.memory.map { .number($0) } ?? .null),
      .init("flops", settings.rates.map { .number($0.operations) } ?? .null),
      .init("bytesPerSecond", settings.rates.map { .number($0.bytes) } ?? .null),
      .init("stepsPerEpoch", settings.stepsPerEpoch.map { .number($0) } ?? .null),
      .init("methods", .array(runs.map(\.json))),
      .init(
        "leftOut",
        .array(
          leftOut.map {
            .object([
              .init("method", .string($0.method.name)), .init("reason", .string($0.reason)),
            ])
          })),
      .init(
        "recommended", recommended.map { .string(runs[$0].method.name) } ?? .null),
      .init("commands", .array(commands.map(JSON.string))),
    ])
  }
}
