import Checkpoints
import Files
import Glibc
import JSON

/// How a model stretches positions beyond those of its first training.
///
/// `config.json` has it in `rope_scaling`, or since transformers 5 in `rope_parameters`; a GGUF file
/// in `rope.scaling.*`, and for Llama 3 as a tensor of factors for the frequencies.
enum RopeScaling {
  case none
  /// The factor as JSON has it.
  case linear(factor: String)
  /// The settings under their names in `config.json`, with numbers as JSON has them.
  case yarn([(name: String, value: String)])
  case llama3(Llama3)

  /// Llama 3's four numbers.
  struct Llama3 {
    let factor: Double
    let low: Double
    let high: Double
    /// The context before it was stretched.
    let length: Int
  }

  /// YaRN's settings: the name in `config.json`, the end of the key in GGUF, and whether it is an
  /// integer there.
  private static let yarnSettings = [
    ("factor", "factor", false), (originalLength, "original_context_length", true),
    ("extrapolation_factor", "yarn_ext_factor", false),
    ("attention_factor", "yarn_attn_factor", false), ("beta_fast", "yarn_beta_fast", false),
    ("beta_slow", "yarn_beta_slow", false),
  ]

  private static let originalLength = "original_max_position_embeddings"

  // MARK: In a GGUF file

  /// Reads the metadata, and the values of `rope_freqs.weight` where there is one.
  ///
  /// - Throws: `unsupported` for a kind, a setting or factors that have no place in `config.json`.
  init(
    _ metadata: GGUFMetadata, factors: [Float]?, base: Double, headSize: Int
  ) throws(PeftoolError) {
    self = try Self.setting(metadata)
    guard let factors, factors.contains(where: { $0 != 1 }) else { return }
    guard case .none = self else {
      throw PeftoolError(
        .unsupported, "has both rope.scaling and factors for frequencies",
        tensor: GGUFTensors.ropeFactors)
    }
    // llama.cpp's converter has worked the settings out to a factor for each frequency; those of
    // every Llama 3 but the two numbers that are looked for are 1 and 4.
    guard let largest = factors.max(), largest.isFinite, factors.count == headSize / 2 else {
      throw Self.unknown
    }
    for exponent in 4...24 {
      let llama3 = Llama3(factor: Double(largest), low: 1, high: 4, length: 1 << exponent)
      let expected = llama3.factors(base: base, headSize: headSize)
      if zip(factors, expected).allSatisfy({ abs(Double($0) - $1) <= 1e-5 * $1 }) {
        self = .llama3(llama3)
        return
      }
    }
    throw Self.unknown
  }

  private static let unknown = PeftoolError(
    .unsupported, "these factors for frequencies are none of Llama 3's scaling",
    tensor: GGUFTensors.ropeFactors)

  private static func setting(_ metadata: GGUFMetadata) throws(PeftoolError) -> RopeScaling {
    let prefix = metadata.own("rope.scaling.")
    let known = ["type", "finetuned"] + yarnSettings.map(\.1)
    for pair in metadata.header.metadata where pair.key.hasPrefix(prefix) {
      guard known.contains(String(pair.key.dropFirst(prefix.count))) else {
        throw PeftoolError(
          .unsupported, "\(pair.key.printable) has no place in config.json that peftool knows")
      }
    }
    let type = try metadata.text(prefix + "type") ?? "none"
    guard type != "none" else { return .none }
    guard type == "linear" || type == "yarn" else {
      throw PeftoolError(
        .unsupported, "\(prefix)type is \(type.printable), expected none, linear or yarn")
    }
    guard let factor = try metadata.number(prefix + "factor") else {
      throw PeftoolError(.damaged, "has no \(prefix)factor")
    }
    guard type == "yarn" else { return .linear(factor: factor.text) }
    var settings: [(name: String, value: String)] = []
    for (name, key, isInteger) in yarnSettings {
      let text =
        isInteger
        ? try metadata.int(prefix + key).map(String.init) : try metadata.number(prefix + key)?.text
      if let text { settings.append((name, text)) }
    }
    return .yarn(settings)
  }

  /// The pairs of metadata for it, whose keys begin with `prefix`.
  func fields(_ prefix: String) throws(PeftoolError) -> [GGUFField] {
    func f32(_ key: String, _ text: String) -> GGUFField {
      .f32(prefix + key, Double(text) ?? .nan)
    }
    switch self {
    case .none, .llama3: return []
    case .linear(let factor): return [.text(prefix + "type", "linear"), f32("factor", factor)]
    case .yarn(let settings):
      var fields: [GGUFField] = [.text(prefix + "type", "yarn")]
      for (name, key, isInteger) in Self.yarnSettings {
        guard let value = settings.first(where: { $0.name == name })?.value else { continue }
        fields.append(isInteger ? .u32(prefix + key, Int(value) ?? 0) : f32(key, value))
      }
      return fields
    }
  }

  // MARK: In config.json

  /// `rope_scaling`; null where positions are not scaled.
  var json: JSON {
    switch self {
    case .none: .null
    case .linear(let factor):
      .object([.init("rope_type", .string("linear")), .init("factor", .number(factor))])
    case .yarn(let settings):
      .object(
        [.init("rope_type", .string("yarn"))]
          + settings.map { JSON.Member($0.name, .number($0.value)) })
    case .llama3(let llama3):
      .object([
        .init("rope_type", .string("llama3")), .init("factor", .number(llama3.factor)),
        .init("low_freq_factor", .number(llama3.low)),
        .init("high_freq_factor", .number(llama3.high)),
        .init(Self.originalLength, .number(llama3.length)),
      ])
    }
  }

  /// Reads a model's configuration.
  ///
  /// - Throws: `unsupported` for a kind or a setting that a GGUF file has no place for.
  init(config: JSON, contextLength: Int) throws(PeftoolError) {
    guard let (place, members) = try Self.settings(of: config) else {
      self = .none
      return
    }
    var type = "default"
    var settings: [String: JSON] = [:]
    for member in members where member.value != .null {
      switch member.key {
      case "rope_type", "type": type = try member.value.string(named: "\(place).\(member.key)")
      case "rope_theta": break
      // transformers' own second spelling.
      case "attn_factor": settings["attention_factor"] = member.value
      default: settings[member.key] = member.value
      }
    }
    func take(_ name: String) throws(PeftoolError) -> String? {
      guard let value = settings.removeValue(forKey: name) else { return nil }
      let single = Float(try value.double(named: "\(place).\(name)"))
      guard single > 0, single.isFinite, case .number(let text) = value else {
        throw value.unfit("\(place).\(name)", "a positive number of F32")
      }
      return text
    }
    func length() throws(PeftoolError) -> Int? {
      guard let value = settings.removeValue(forKey: Self.originalLength) else { return nil }
      let length = try value.int(named: "\(place).\(Self.originalLength)")
      guard (1...Int(UInt32.max)).contains(length) else {
        throw value.unfit("\(place).\(Self.originalLength)", "1 to \(UInt32.max)")
      }
      return length
    }
    func required(_ text: String?, _ name: String) throws(PeftoolError) -> String {
      guard let text else { throw PeftoolError(.damaged, "has no \(place).\(name)") }
      return text
    }
    switch type {
    case "default": self = .none
    case "linear": self = .linear(factor: try required(take("factor"), "factor"))
    case "yarn":
      // transformers takes the whole context where the original one is missing.
      var found = [
        ("factor", try required(take("factor"), "factor")),
        (Self.originalLength, "\(try length() ?? contextLength)"),
      ]
      for (name, _, isInteger) in Self.yarnSettings where name != "factor" && !isInteger {
        if let value = try take(name) { found.append((name, value)) }
      }
      self = .yarn(found)
    case "llama3":
      func number(_ name: String) throws(PeftoolError) -> Double {
        Double(try required(take(name), name)) ?? .nan
      }
      let llama3 = Llama3(
        factor: try number("factor"), low: try number("low_freq_factor"),
        high: try number("high_freq_factor"), length: try length() ?? contextLength)
      guard llama3.low < llama3.high else {
        throw PeftoolError(
          .damaged,
          "\(place).low_freq_factor is \(llama3.low), expected less than high_freq_factor")
      }
      self = .llama3(llama3)
    default:
      throw PeftoolError(
        .unsupported,
        "\(place).rope_type is \(type.printable), expected default, linear, yarn or llama3")
    }
    if let left = settings.keys.min(by: { $0.precedesByBytes($1) }) {
      throw PeftoolError(
        .unsupported,
        "\(place).\(left.printable) has no place in a GGUF file that peftool knows")
    }
  }

  /// The object in `config.json` that has it, with its name.
  static func settings(
    of config: JSON
  ) throws(PeftoolError) -> (place: String, members: [JSON.Member])? {
    for place in ["rope_parameters", "rope_scaling"] {
      guard let value = config[place], value != .null else { continue }
      return (place, try value.object(named: place))
    }
    return nil
  }
}

extension RopeScaling.Llama3 {
  /// What Llama 3 divides each frequency by: nothing for short waves, `factor` for waves longer
  /// than the original context, and in between a mixture.
  func factors(base: Double, headSize: Int) -> [Double] {
    stride(from: 0, to: headSize, by: 2).map { place in
      let wave = 2 * Double.pi * pow(base, Double(place) / Double(headSize))
      let length = Double(length)
      if wave < length / high { return 1 }
      if wave > length / low { return factor }
      let share = (length / wave - low) / (high - low)
      return 1 / ((1 - share) / factor + share)
    }
  }
}
