import Files
import YAML

/// The settings of `finetune` in a file: its options by their names, what the command line says wins.
enum FinetuneConfiguration {
  private enum Kind {
    /// One value, a switch, an option for each of several values, and names that commas separate.
    case value, flag, list, names
  }

  /// The options that may stand there.
  private static let kinds: [String: Kind] = [
    "data": .list, "eval-data": .list, "data-format": .value, "max-length": .value,
    "truncate": .flag, "train-on-prompt": .flag, "chat-template": .value, "packing": .flag,
    "group-by-length": .flag, "method": .value, "init-r": .value, "tinit": .value,
    "tfinal": .value, "delta-t": .value, "update-proj-gap": .value, "scale": .value,
    "proj-type": .value, "dtype": .value, "long": .flag,
    "group-size": .value, "rope-scaling": .value, "orth-reg-weight": .value, "rank": .value,
    "rank-by": .value, "max-rank": .value, "mean-rank": .value, "budget": .value,
    "energy": .value, "sparsity": .value, "mask": .value,
    "alpha": .value,
    "dropout": .value,
    "rank-pattern": .list, "alpha-pattern": .list, "lora-bias": .flag, "adapter": .value,
    "rslora": .flag, "dora": .flag, "target-modules": .names, "modules-to-save": .names,
    "trainable-tokens": .names, "init": .value, "quantize": .value, "epochs": .value,
    "max-steps": .value, "batch-size": .value, "gradient-accumulation": .value,
    "learning-rate": .value, "schedule": .value, "warmup": .value, "optimizer": .value,
    "weight-decay": .value,
    "max-grad-norm": .value, "loraplus-ratio": .value, "seed": .value, "eval-every": .value,
    "early-stop": .value, "save-every": .value, "checkpoint-activations": .value,
    "report": .value, "threads": .value,
  ]
  private static let verb = "finetune"
  private static let option = "--config"

  /// The names of the options that may stand in a file.
  static var names: [String] { kinds.keys.sorted() }

  /// The arguments of a command line with those of its `--config` put before them; those of other
  /// verbs as they are.
  ///
  /// - Throws: as `YAML`, and `damaged` for keys that are no options and values that are not of their
  ///   kind, with path and line.
  static func expanding(_ arguments: [String]) throws(PeftoolError) -> [String] {
    guard arguments.first == verb, let path = value(of: option, in: arguments) else {
      return arguments
    }
    let yaml = try YAML(opening: path)
    var added: [String] = []
    do throws(PeftoolError) {
      for member in try yaml.mapping("the file") {
        try added += self.arguments(of: member, unlessIn: arguments)
      }
    } catch {
      throw error.at(path: path)
    }
    return [verb] + added + arguments.dropFirst()
  }

  private static func arguments(
    of member: YAML.Member, unlessIn given: [String]
  ) throws(PeftoolError) -> [String] {
    let key = String(member.key.map { $0 == "_" ? "-" : $0 })
    guard let kind = kinds[key] else {
      throw member.value.error(
        "\(member.key.printable) is no option, expected one of \(names.joined(separator: ", "))")
    }
    let name = "--\(key)"
    let isGiven = given.contains { $0 == name || $0.hasPrefix(name + "=") }
    switch kind {
    case .flag:
      return try member.value.bool(key) && !isGiven ? [name] : []
    case .value:
      let value = try member.value.string(key)
      return isGiven ? [] : ["\(name)=\(value)"]
    case .list:
      let values = try strings(member.value, key)
      return isGiven ? [] : values.map { "\(name)=\($0)" }
    case .names:
      let value = try strings(member.value, key).joined(separator: ",")
      return isGiven ? [] : ["\(name)=\(value)"]
    }
  }

  /// The texts of a list, or the one text that stands in its place.
  private static func strings(_ value: YAML, _ key: String) throws(PeftoolError) -> [String] {
    guard case .sequence(let elements) = value.content else { return [try value.string(key)] }
    var strings: [String] = []
    for element in elements { strings.append(try element.string(key)) }
    return strings
  }

  /// The value of an option in either spelling.
  private static func value(of option: String, in arguments: [String]) -> String? {
    for (place, argument) in arguments.enumerated() {
      if argument.hasPrefix(option + "=") { return String(argument.dropFirst(option.count + 1)) }
      if argument == option, place + 1 < arguments.count { return arguments[place + 1] }
    }
    return nil
  }
}
