package import Checkpoints
package import Files
package import JSON

/// Positions that are stretched to longer texts, with all that a `config.json` says of them: what an
/// adapter for long texts was trained with, and is of use with alone.
package struct StretchedPositions: Sendable {
  /// How they are stretched.
  package let scaling: PositionScaling
  /// The configuration that says so.
  let config: JSON

  /// What a configuration says; nil where its positions are not stretched, or in a way that no
  /// adapter is trained with.
  package init?(_ config: JSON?) {
    guard let config, let scaling = PositionScaling(config) else { return nil }
    self.scaling = scaling
    self.config = config
  }

  /// All that makes up the positions, whatever the spelling: `type` for `rope_type`, `rope_theta` in
  /// the settings or beside them, `4` and `4.0`.
  private var values: [String: JSON] {
    var values: [String: JSON] = [:]
    var members = PositionScaling.configKeys.map { (key: $0, value: config[$0]) }
    if case .object(let settings) = PositionScaling.settings(of: config) {
      members += settings.map { ($0.key == "type" ? "rope_type" : $0.key, $0.value) }
    }
    for (key, value) in members where !PositionScaling.settingsKeys.contains(key) {
      switch value {
      case nil, .null: continue
      case .number(let text): values[key] = Double(text).map { .number($0) } ?? .number(text)
      case let value?: values[key] = value
      }
    }
    return values
  }

  /// Where other positions differ, such as "factor is 4.0 and 8.0"; nil where they are the same.
  func difference(from other: StretchedPositions) -> String? {
    let (own, others) = (values, other.values)
    let keys = Set(own.keys).union(others.keys).sorted { $0.precedesByBytes($1) }
    guard let key = keys.first(where: { own[$0] != others[$0] }) else { return nil }
    let (left, right) = (own[key]?.summary ?? "missing", others[key]?.summary ?? "missing")
    return "\(key.printable) is \(left) and \(right)"
  }

  /// These, where a model of a configuration has others; nil where it has them already.
  package func missing(in base: JSON?) -> StretchedPositions? {
    guard let own = StretchedPositions(base) else { return self }
    return difference(from: own) == nil ? nil : self
  }

  /// The error for an output that has no place for them.
  package func refusal(of output: String) -> PeftoolError {
    PeftoolError(
      .unsupported,
      "was trained with positions stretched (\(scaling.text)), for which \(output) has no place; "
        + "'peftool merge' writes a model that has them")
  }

  /// Those of another model, stretched as much as these: all else of them stays its own.
  ///
  /// - Throws: `unsupported` where they are stretched in another way, or more; `damaged`.
  func moved(to other: JSON) throws(PeftoolError) -> StretchedPositions? {
    var rest = scaling
    if let own = PositionScaling(other), own.kind == scaling.kind {
      if own == scaling { return StretchedPositions(other) }
      guard let left = scaling.rest(after: own) else {
        throw PeftoolError(.unsupported, "positions are stretched already (\(own.text))")
      }
      rest = left
    }
    return StretchedPositions(try rest.applied(to: other))
  }

  /// A model's configuration with these positions in the place of its own.
  ///
  /// - Throws: `damaged` where it is no object.
  package func applied(to base: JSON) throws(PeftoolError) -> JSON {
    let own = PositionScaling.configKeys.compactMap { key in config[key].map { (key, $0) } }
    return try PositionScaling.settingsKeys.reduce(base) { $0.without($1) }.replacing(own)
  }

  /// The positions of several adapters together.
  struct Shared {
    /// Those of all; nil where none has any.
    let positions: StretchedPositions?
    /// What the user should know: a sentence for each adapter that was trained without.
    let notes: [String]

    /// - Throws: `different` where two have different ones, with what differs.
    init(
      _ adapters: [(path: String, positions: StretchedPositions?)]
    ) throws(PeftoolError) {
      var first: (path: String, positions: StretchedPositions)?
      for (path, positions) in adapters {
        guard let positions else { continue }
        guard let known = first else {
          first = (path, positions)
          continue
        }
        guard let difference = positions.difference(from: known.positions) else { continue }
        throw PeftoolError(
          .different,
          "was trained with positions stretched (\(positions.scaling.text)), "
            + "\(known.path.printable) with \(known.positions.scaling.text): \(difference)",
          path: path)
      }
      self.positions = first?.positions
      notes = adapters.compactMap { path, positions in
        guard let first, positions == nil else { return nil }
        return "\(path.printable) was trained with the model's own positions, and gets those of "
          + "\(first.path.printable): \(first.positions.scaling.text)"
      }
    }

    /// The positions that adapters were trained with.
    ///
    /// - Throws: as the other; `damaged`, `io`.
    init(of adapters: [Adapter]) throws(PeftoolError) {
      var found: [(path: String, positions: StretchedPositions?)] = []
      for adapter in adapters {
        found.append((adapter.path, StretchedPositions(try adapter.checkpoint.modelConfig)))
      }
      try self.init(found)
    }
  }
}

extension Checkpoint {
  /// The model with the positions that adapters were trained with, and what the user should know of
  /// them.
  ///
  /// - Throws: `different` where two adapters have different ones; `damaged`, `io`.
  package func stretched(
    by adapters: [Adapter]
  ) throws(PeftoolError) -> (model: Checkpoint, notes: [String]) {
    let shared = try StretchedPositions.Shared(of: adapters)
    guard let base = try modelConfig, let positions = shared.positions?.missing(in: base) else {
      return (self, shared.notes)
    }
    return (viewed(through: source, config: try positions.applied(to: base)), shared.notes)
  }
}

extension JSON {
  /// The object without a member.
  func without(_ key: String) -> JSON {
    guard case .object(let members) = self else { return self }
    return .object(members.filter { $0.key != key })
  }
}
