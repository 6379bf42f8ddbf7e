import Adapters
import ArgumentParser
import Reports

/// To what rank updates are cut.
struct RankOptions: ParsableArguments {
  @Option(help: ArgumentHelp("Cut each module to this rank.", valueName: "r"))
  var rank: Int?

  @Option(
    help: ArgumentHelp(
      "Keep this share of each module's energy, the squares of its singular values.",
      valueName: "share"))
  var energy: Double?

  @Flag(help: "Keep each module's effective rank, by the entropy of its singular values.")
  var effective = false

  @Option(
    name: .customLong("sv-ratio"),
    help: ArgumentHelp("Keep singular values above the largest / this.", valueName: "ratio"))
  var ratio: Double?

  @Option(
    name: .customLong("sv-fro"),
    help: ArgumentHelp("Keep this share of each module's Frobenius norm.", valueName: "share"))
  var norm: Double?

  @Option(
    name: .customLong("sv-cumulative"),
    help: ArgumentHelp("Keep this share of the sum of singular values.", valueName: "share"))
  var sum: Double?

  /// Larger than any adapter's.
  private static let largestRank = 65_536

  func validate() throws {
    let given = [rank != nil, energy != nil, effective, ratio != nil, norm != nil, sum != nil]
    guard given.count(where: \.self) <= 1 else {
      throw ValidationError(
        "one of --rank, --energy, --effective, --sv-ratio, --sv-fro and --sv-cumulative at most")
    }
    if let rank, !(1...Self.largestRank).contains(rank) {
      throw ValidationError("--rank is \(rank), expected 1 to \(Self.largestRank)")
    }
    for (name, share) in [("--energy", energy), ("--sv-fro", norm), ("--sv-cumulative", sum)] {
      guard let share else { continue }
      guard share > 0, share <= 1 else {
        throw ValidationError("\(name) is \(share), expected more than 0 and at most 1")
      }
    }
    if let ratio, !(ratio >= 1) || !ratio.isFinite {
      throw ValidationError("--sv-ratio is \(ratio), expected 1 or more")
    }
  }

  /// What was chosen, as a phrase.
  var summary: String {
    if let rank { return "of rank \(rank) at most" }
    if let energy { return "that keeps \(energy.percentText) of each module's energy" }
    if let ratio { return "with singular values above the largest / \(ratio.measureText)" }
    if let norm { return "that keeps \(norm.percentText) of each module's norm" }
    if let sum { return "that keeps \(sum.percentText) of each sum of singular values" }
    return "of each module's effective rank"
  }

  /// What was chosen; nil where nothing was.
  var choice: RankChoice? {
    if let rank { return .fixed(rank) }
    if let energy { return .energy(energy) }
    if effective { return .effective }
    if let ratio { return .ratio(ratio) }
    if let norm { return .energy(norm * norm) }
    if let sum { return .sum(sum) }
    return nil
  }
}
