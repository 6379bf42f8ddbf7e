import Adapters
import ArgumentParser
import Reports

/// To what ranks updates are cut: one for all, or each by a criterion.
struct AutomaticRankOptions: ParsableArguments {
  @OptionGroup var rank: RankOptions

  @Option(
    help: ArgumentHelp(
      "Find each module's rank, and tell why: energy (the share --energy, 0.9 if left out), "
        + "effective-rank, or budget, the best ranks for --budget or --mean-rank.",
      valueName: "criterion"))
  var auto: Criterion?

  @Option(
    help: ArgumentHelp(
      "With --auto budget: the parameters that A and B of all modules take at most.",
      valueName: "n"))
  var budget: Int?

  @Option(
    name: .customLong("mean-rank"),
    help: ArgumentHelp(
      "With --auto budget: as many parameters as this rank in every module takes.",
      valueName: "r"))
  var meanRank: Double?

  /// By what ranks are found.
  enum Criterion: String, CaseIterable, ExpressibleByArgument {
    case energy
    case effectiveRank = "effective-rank"
    case budget
  }

  /// What `--auto energy` keeps where nothing is said.
  static let defaultEnergy = 0.9

  func validate() throws {
    if auto != .budget, budget != nil || meanRank != nil {
      throw ValidationError("--budget and --mean-rank go with --auto budget")
    }
    if let auto, rank.choice != nil, !(auto == .energy && rank.energy != nil) {
      throw ValidationError(
        "--auto \(auto.rawValue) finds the rank by itself"
          + (auto == .energy ? ", and goes with --energy alone" : ""))
    }
    if auto == .budget, (budget == nil) == (meanRank == nil) {
      throw ValidationError("--auto budget needs one of --budget and --mean-rank")
    }
    if let budget, budget < 1 {
      throw ValidationError("--budget is \(budget), expected 1 or more")
    }
    if let meanRank, !(meanRank >= 1) || !meanRank.isFinite {
      throw ValidationError("--mean-rank is \(meanRank), expected 1 or more")
    }
  }

  /// What was chosen for each module by itself; nil where nothing was, and for a budget.
  var choice: RankChoice? {
    switch auto {
    case .energy: rank.choice ?? .energy(Self.defaultEnergy)
    case .effectiveRank: .effective
    case .budget: nil
    case nil: rank.choice
    }
  }

  /// What was chosen for all modules together.
  var allBudget: RankBudget? { budget.map { .parameters($0) } ?? meanRank.map { .meanRank($0) } }

  /// What was chosen, as a phrase.
  var summary: String {
    if let budget { return "for \(budget.groupedText) parameters in all modules" }
    if let meanRank {
      return "for the parameters of rank \(meanRank.measureText) in every module"
    }
    if auto == .energy, rank.choice == nil {
      return "that keeps \(Self.defaultEnergy.percentText) of each module's energy"
    }
    return rank.summary
  }
}
