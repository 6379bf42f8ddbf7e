import ArgumentParser
import Files
import Training

/// What AdaLoRA has to be told besides: how it comes to its budget.
struct AdaLoRAOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The rank with which layers begin, of which --rank is left in the mean; half as much again "
        + "if left out.", valueName: "r"))
  var initR: Int?

  @Option(
    help: ArgumentHelp(
      "The steps before ranks are pruned; a tenth of all if left out.", valueName: "n"))
  var tinit: Int?

  @Option(
    help: ArgumentHelp(
      "How many steps before the end --rank is met; three tenths of all if left out.",
      valueName: "n"))
  var tfinal: Int?

  @Option(
    help: ArgumentHelp(
      "The steps from one pruning to the next; a hundredth of all if left out.", valueName: "n"))
  var deltaT: Int?

  @Option(
    help: ArgumentHelp(
      "The weight of what keeps the rows of A and the columns of B orthonormal; 0.5 if left out.",
      valueName: "x"))
  var orthRegWeight: Double?

  /// The options that are given, for a message.
  var given: [String] {
    [
      ("--init-r", initR != nil), ("--tinit", tinit != nil), ("--tfinal", tfinal != nil),
      ("--delta-t", deltaT != nil), ("--orth-reg-weight", orthRegWeight != nil),
    ].filter(\.1).map(\.0)
  }

  func validate() throws {
    for (name, value, range) in [
      ("--init-r", initR, AdapterDesignOptions.rankRange),
      ("--tinit", tinit, 0...1_000_000_000), ("--tfinal", tfinal, 1...1_000_000_000),
      ("--delta-t", deltaT, 1...1_000_000_000),
    ] {
      if let value, !range.contains(value) {
        throw ValidationError(
          "\(name) is \(value), expected \(range.lowerBound) to \(range.upperBound)")
      }
    }
    if let orthRegWeight, !(orthRegWeight >= 0 && orthRegWeight.isFinite) {
      throw ValidationError("--orth-reg-weight is \(orthRegWeight), expected a number, 0 at least")
    }
  }

  /// The rank with which layers begin where nobody says another: half as much again.
  static func initialRank(_ rank: Int) -> Int { (3 * rank + 1) / 2 }

  /// The settings of a run of so many steps.
  ///
  /// - Throws: `different` where the steps do not suffice, or the rank is more than that of the
  ///   beginning.
  func settings(rank: Int, stepCount: Int) throws(PeftoolError) -> AdaLoRA.Settings {
    var settings = AdaLoRA.Settings()
    settings.targetRank = rank
    settings.initialRank = initR ?? Self.initialRank(rank)
    settings.stepCount = stepCount
    settings.initialSteps = tinit ?? stepCount / 10
    settings.finalSteps = tfinal ?? max(1, 3 * stepCount / 10)
    settings.interval = deltaT ?? max(1, stepCount / 100)
    if let orthRegWeight { settings.orthogonality = orthRegWeight }
    guard settings.initialRank >= rank else {
      throw PeftoolError(
        .different, "--init-r is \(settings.initialRank), expected --rank at least, \(rank)")
    }
    guard settings.initialSteps < stepCount - settings.finalSteps else {
      throw PeftoolError(
        .different,
        "no step of \(stepCount) is left to prune in: --tinit is \(settings.initialSteps) and "
          + "--tfinal \(settings.finalSteps), expected fewer together")
    }
    return settings
  }
}
