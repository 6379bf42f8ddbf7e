package import Files
package import JSON

/// How a model's positions are stretched to longer texts, as `config.json` says it: what an adapter
/// for long texts is trained with, and what a model that uses it has to have.
///
/// Sources: transformers 5, `modeling_rope_utils.py`; LongLoRA's `fine-tune.py`, which puts a new
/// factor in the place of one that is there, where the two belong multiplied.
package struct PositionScaling: Equatable, Sendable {
  /// The kinds, by transformers' names (`rope_type`).
  package enum Kind: String, CaseIterable, Sendable {
    case linear, yarn, dynamic
  }

  /// The kind.
  package let kind: Kind
  /// How many times as many positions there are, more than 1.
  package let factor: Double

  /// Reads `linear:4`; nil where it is nothing like that.
  package init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2, let kind = Kind(rawValue: String(parts[0])),
      let factor = Double(parts[1]), factor > 1, factor <= 1e6
    else { return nil }
    self.kind = kind
    self.factor = factor
  }

  private init(kind: Kind, factor: Double) {
    self.kind = kind
    self.factor = factor
  }

  /// What a configuration says, in either spelling; nil where its positions are not stretched, or in
  /// another way.
  package init?(_ config: JSON) {
    guard let settings = Self.settings(of: config),
      case .string(let name) = settings["rope_type"] ?? settings["type"],
      let kind = Kind(rawValue: name), case .number(let text) = settings["factor"],
      let factor = Double(text)
    else { return nil }
    self.init(kind: kind, factor: factor)
  }

  /// A configuration with the positions stretched; `max_position_embeddings` tells how many there
  /// are, but for `dynamic`, where it tells how many there were.
  ///
  /// - Throws: `unsupported` where they are stretched already in another way; `damaged`.
  package func applied(to config: JSON) throws(PeftoolError) -> JSON {
    let key = Self.key(of: config)
    let old = Self.settings(of: config) ?? .object([])
    let type = try (old["rope_type"] ?? old["type"] ?? .string("default"))
      .string(named: "\(key).rope_type")
    let positions = try config.int(at: "max_position_embeddings")
    guard positions > 0 else {
      throw PeftoolError(
        .damaged, "max_position_embeddings is \(positions), expected more than 0")
    }
    if let value = config[key], value != .null { _ = try value.object(named: key) }
    var factor = factor
    if type == kind.rawValue, kind == .linear {
      factor *= try old.double(at: "factor")
    } else if type != "default" {
      throw PeftoolError(
        .unsupported,
        "\(key).rope_type is \"\(type.printable)\" already, which \(kind.rawValue):"
          + "\(self.factor.plainText) cannot be put on top of")
    }
    var settings: [(String, JSON)] = [
      ("rope_type", .string(kind.rawValue)), ("factor", .number(factor)),
    ]
    if kind == .yarn { settings.append(("original_max_position_embeddings", .number(positions))) }
    var members = [(key, try old.without("type").replacing(settings))]
    if kind != .dynamic {
      let count = Double(positions) * self.factor
      members.append(("max_position_embeddings", .number(Int(min(count, Double(1 << 30))))))
    }
    return try config.replacing(members)
  }

  /// What is left to do where a part of it is done; nil where the one does not go on top of the other.
  func rest(after part: PositionScaling) -> PositionScaling? {
    guard kind == .linear, part.kind == .linear, factor > part.factor else { return nil }
    return PositionScaling(kind: kind, factor: factor / part.factor)
  }

  /// Such as "linear, 4 times".
  package var text: String { "\(kind.rawValue), \(factor.plainText) times" }

  /// The keys of the settings, the older first.
  static let settingsKeys = ["rope_scaling", "rope_parameters"]
  /// The keys of all that a configuration says of positions.
  static let configKeys = settingsKeys + ["rope_theta", "max_position_embeddings"]

  /// The key of the settings: of both, transformers takes the older unless it is empty.
  private static func key(of config: JSON) -> String {
    let (older, newer) = (settingsKeys[0], settingsKeys[1])
    let old = config[older] ?? .null
    return old == .null || old == .object([]) ? config[newer] == nil ? older : newer : older
  }

  /// The settings; nil where there are none.
  static func settings(of config: JSON) -> JSON? {
    guard let settings = config[key(of: config)], case .object = settings else { return nil }
    return settings
  }
}

extension Double {
  /// A whole number without a point.
  fileprivate var plainText: String {
    self == rounded() && abs(self) < 1e15 ? "\(Int(self))" : "\(self)"
  }
}
