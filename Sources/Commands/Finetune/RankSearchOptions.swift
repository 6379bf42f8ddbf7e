import Adapters
import ArgumentParser
import Reports
import Training

/// How `--rank auto` finds the layers' ranks.
struct RankSearchOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "By what ranks are found: budget, the best for --budget or --mean-rank; energy, the share "
        + "--energy of each layer's update; or effective-rank; budget if left out.",
      valueName: "criterion"))
  var rankBy: AutomaticRankOptions.Criterion?

  @Option(
    help: ArgumentHelp(
      "The rank with which layers begin; 16 if left out, or twice --mean-rank.", valueName: "r"))
  var maxRank: Int?

  @Option(
    help: ArgumentHelp(
      "With budget: as many parameters as this rank in every layer takes; 8 if left out, or "
        + "half of --max-rank where that is less.",
      valueName: "r"))
  var meanRank: Double?

  @Option(
    help: ArgumentHelp(
      "With budget: the parameters that A and B of all layers take at most.", valueName: "n"))
  var budget: Int?

  @Option(
    help: ArgumentHelp(
      "With energy: the share that is kept, 0.9 if left out.", valueName: "share"))
  var energy: Double?

  /// The options that are given, for a message.
  var given: [String] {
    [
      ("--rank-by", rankBy != nil), ("--max-rank", maxRank != nil),
      ("--mean-rank", meanRank != nil), ("--budget", budget != nil), ("--energy", energy != nil),
    ].filter(\.1).map(\.0)
  }

  private static let defaultRank = 16

  private var criterion: AutomaticRankOptions.Criterion { rankBy ?? .budget }

  func validate() throws {
    if let maxRank, !AdapterDesignOptions.rankRange.contains(maxRank) {
      throw ValidationError(
        "--max-rank is \(maxRank), expected 1 to \(AdapterDesignOptions.rankRange.upperBound)")
    }
    if let meanRank, !(meanRank >= 1 && meanRank <= 32_768) {
      throw ValidationError("--mean-rank is \(meanRank), expected 1 to 32768")
    }
    if let meanRank, meanRank >= Double(initialRank) {
      throw ValidationError(
        "--mean-rank is \(meanRank), expected less than --max-rank, \(initialRank)")
    }
    if let budget, budget < 1 {
      throw ValidationError("--budget is \(budget), expected 1 or more")
    }
    if let energy, !(energy > 0 && energy <= 1) {
      throw ValidationError("--energy is \(energy), expected more than 0 and 1 at most")
    }
    for (name, isGiven, owner) in [
      ("--mean-rank", meanRank != nil, AutomaticRankOptions.Criterion.budget),
      ("--budget", budget != nil, .budget), ("--energy", energy != nil, .energy),
    ] where isGiven && criterion != owner {
      throw ValidationError("\(name) goes with --rank-by \(owner.rawValue)")
    }
    if budget != nil, meanRank != nil {
      throw ValidationError("--budget and --mean-rank say the same: give one of them")
    }
  }

  /// The rank with which layers begin.
  var initialRank: Int { maxRank ?? meanRank.map { 2 * Int($0.rounded(.up)) } ?? Self.defaultRank }

  /// Half of the rank with which layers begin, 8 at most.
  private var defaultMeanRank: Double { min(8, Double(initialRank) / 2) }

  /// The search in a run of so many steps.
  func settings(stepCount: Int) -> RankSearch.Settings {
    let criterion: RankSearch.Criterion =
      switch criterion {
      case .energy: .each(.energy(energy ?? AutomaticRankOptions.defaultEnergy))
      case .effectiveRank: .each(.effective)
      case .budget: .all(budget.map { .parameters($0) } ?? .meanRank(meanRank ?? defaultMeanRank))
      }
    return RankSearch.Settings(
      initialRank: initialRank, criterion: criterion, stepCount: stepCount)
  }
}

extension RankSearch.Criterion {
  /// What ranks are cut to, as a phrase.
  var text: String {
    switch self {
    case .each(.energy(let share)): "those that keep \(share.percentText) of each layer's energy"
    case .each: "each layer's effective rank"
    case .all(.parameters(let count)): "the best for \(count.groupedText) parameters"
    case .all(.meanRank(let rank)):
      "the best for the parameters of rank \(rank.measureText) everywhere"
    }
  }
}
