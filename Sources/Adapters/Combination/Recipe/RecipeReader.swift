import Files
import YAML

/// Reads a recipe's keys.
struct RecipeReader {
  /// The recipe's path; nil for a text that is no file.
  let path: String?

  private static let largestRank = 65_536
  private static let largestLayerCount = 1_000_000
  private static let keys = [
    "adapters", "method", "base", "layers", "weight", "density", "rank", "energy", "effective",
    "sv_ratio", "sv_fro", "sv_cumulative", "majority_sign_method", "gamma", "epsilon", "seed",
    "exact",
  ]

  /// The recipe that a document is.
  ///
  /// - Throws: `damaged` with line and key.
  func recipe(_ yaml: YAML) throws(PeftoolError) -> Recipe {
    var recipe = Recipe()
    var rankKey: String?
    for member in try yaml.mapping("a recipe") {
      let (key, value) = (member.key, member.value)
      if let choice = try rankChoice(key, value) {
        if let rankKey {
          throw value.error("\(key) beside \(rankKey), expected one of them")
        }
        (recipe.rank, rankKey) = (choice, key)
        continue
      }
      switch key {
      case "adapters": recipe.adapters = try adapters(value)
      case "method": recipe.method = try oneOf(CombinationMethod.allCases, value, key)
      case "base": recipe.base = located(try value.string(key))
      case "layers":
        recipe.layerCount = Int(try integer(value, key, 1...UInt64(Self.largestLayerCount)))
      case "weight": recipe.weight = try parameter(value, key, nil)
      case "density": recipe.density = try parameter(value, key, 0...1)
      case "majority_sign_method":
        recipe.majority = try oneOf(Election.Rule.allCases, value, key)
      case "gamma": recipe.gamma = try number(value, key, 0...1)
      case "epsilon": recipe.epsilon = try number(value, key, 0...1)
      case "seed": recipe.seed = try value.unsignedInteger(key)
      case "exact": recipe.isExact = try value.bool(key)
      default: throw unknown(member, "", Self.keys)
      }
    }
    guard !recipe.adapters.isEmpty else { throw yaml.error("adapters is missing") }
    return recipe
  }

  private func adapters(_ value: YAML) throws(PeftoolError) -> [Recipe.Adapter] {
    var adapters: [Recipe.Adapter] = []
    for (place, element) in try value.sequence("adapters").enumerated() {
      let here = "adapters[\(place)]"
      var path: String?
      var (weight, density): (Parameter?, Parameter?)
      for member in try element.mapping(here) {
        let key = "\(here).\(member.key)"
        switch member.key {
        case "path": path = located(try member.value.string(key))
        case "weight": weight = try parameter(member.value, key, nil)
        case "density": density = try parameter(member.value, key, 0...1)
        default: throw unknown(member, "\(here).", ["path", "weight", "density"])
        }
      }
      guard let path else { throw element.error("\(here).path is missing") }
      var adapter = Recipe.Adapter(path: path)
      (adapter.weight, adapter.density) = (weight, density)
      adapters.append(adapter)
    }
    guard !adapters.isEmpty else { throw value.unfit("adapters", "one at least") }
    return adapters
  }

  /// What a key says of ranks; nil for one that says nothing of them.
  private func rankChoice(_ key: String, _ value: YAML) throws(PeftoolError) -> RankChoice? {
    switch key {
    case "rank": return .fixed(Int(try integer(value, key, 1...UInt64(Self.largestRank))))
    case "effective":
      guard try value.bool(key) else { throw value.unfit(key, "true, or no such key") }
      return .effective
    case "energy": return .energy(try share(value, key))
    case "sv_fro":
      let share = try share(value, key)
      return .energy(share * share)
    case "sv_cumulative": return .sum(try share(value, key))
    case "sv_ratio":
      let ratio = try value.double(key)
      guard ratio >= 1 else { throw value.unfit(key, "1 or more") }
      return .ratio(ratio)
    default: return nil
    }
  }

  private func share(_ value: YAML, _ key: String) throws(PeftoolError) -> Double {
    let share = try value.double(key)
    guard share > 0, share <= 1 else { throw value.unfit(key, "more than 0 and at most 1") }
    return share
  }

  private func integer(
    _ value: YAML, _ key: String, _ range: ClosedRange<UInt64>
  ) throws(PeftoolError) -> UInt64 {
    let number = try value.unsignedInteger(key)
    guard range.contains(number) else {
      throw value.unfit(key, "\(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  /// A number in a range; nil for any.
  func number(
    _ value: YAML, _ key: String, _ range: ClosedRange<Double>?
  ) throws(PeftoolError) -> Double {
    let number = try value.double(key)
    if let range, !range.contains(number) {
      throw value.unfit(key, "\(Int(range.lowerBound)) to \(Int(range.upperBound))")
    }
    return number
  }

  private func oneOf<Choice: RawRepresentable<String>>(
    _ choices: [Choice], _ value: YAML, _ key: String
  ) throws(PeftoolError) -> Choice {
    let text = try value.string(key)
    guard let choice = choices.first(where: { $0.rawValue == text }) else {
      throw value.unfit(key, choices.map(\.rawValue).joined(separator: ", "))
    }
    return choice
  }

  /// A path as it is seen from the working folder: the recipe's begin in its own folder.
  private func located(_ other: String) -> String {
    guard let path, !other.hasPrefix("/") else { return other }
    let folder = Folder.parent(of: path)
    return folder == "." ? other : Folder.path(folder, other)
  }

  /// The error for a key that no recipe has there.
  func unknown(_ member: YAML.Member, _ place: String, _ known: [String]) -> PeftoolError {
    PeftoolError(
      .damaged,
      "line \(member.line): \(place)\(member.key.printable) is no key of a recipe, expected "
        + known.joined(separator: ", "))
  }
}
