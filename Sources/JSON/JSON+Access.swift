package import Files

extension JSON {
  /// A number from an integer.
  package static func number(_ value: Int) -> JSON { .number(String(value)) }

  /// A number with the fewest digits that give the same double back; what is not finite has no
  /// JSON number and becomes null.
  package static func number(_ value: Double) -> JSON {
    value.isFinite ? .number("\(value)") : .null
  }

  /// The member of that name of an object, else nil.
  package subscript(key: String) -> JSON? {
    guard case .object(let members) = self else { return nil }
    return members.first { $0.key.isExactly(key) }?.value
  }

  /// The value at a path of keys from here, else nil; `null` counts as a value.
  package func value(at path: [String]) -> JSON? {
    var value = self
    for key in path {
      guard let next = value[key] else { return nil }
      value = next
    }
    return value
  }

  /// What the value is, for a message: short scalars as they stand, else the kind.
  package var summary: String {
    switch self {
    case .null: "null"
    case .bool(let value): "\(value)"
    case .number(let text): text.printable
    case .string(let text): "\"\(text.printable)\""
    case .array(let elements): "an array of \(elements.count)"
    case .object(let members): "an object of \(members.count)"
    }
  }

  /// This value as an integer: digits only, so neither `4.0` nor `"4"` nor `true`.
  ///
  /// - Throws: `damaged` with `place` in the reason.
  package func int(named place: String) throws(PeftoolError) -> Int {
    guard case .number(let text) = self, let value = Int(text) else {
      throw unfit(place, "an integer")
    }
    return value
  }

  /// This value as a double; any finite number.
  ///
  /// - Throws: `damaged` with `place` in the reason.
  package func double(named place: String) throws(PeftoolError) -> Double {
    guard case .number(let text) = self, let value = Double(text), value.isFinite else {
      throw unfit(place, "a number")
    }
    return value
  }

  /// This value as a boolean.
  ///
  /// - Throws: `damaged` with `place` in the reason.
  package func bool(named place: String) throws(PeftoolError) -> Bool {
    guard case .bool(let value) = self else { throw unfit(place, "true or false") }
    return value
  }

  /// This value as a string.
  ///
  /// - Throws: `damaged` with `place` in the reason.
  package func string(named place: String) throws(PeftoolError) -> String {
    guard case .string(let value) = self else { throw unfit(place, "a string") }
    return value
  }

  /// This value's elements.
  ///
  /// - Throws: `damaged` with `place` in the reason.
  package func array(named place: String) throws(PeftoolError) -> [JSON] {
    guard case .array(let value) = self else { throw unfit(place, "an array") }
    return value
  }

  /// This value's members, in order.
  ///
  /// - Throws: `damaged` with `place` in the reason.
  package func object(named place: String) throws(PeftoolError) -> [Member] {
    guard case .object(let value) = self else { throw unfit(place, "an object") }
    return value
  }

  /// The integer at a path of keys.
  ///
  /// - Throws: `damaged` where it is missing or no integer; the reason has the path.
  package func int(at path: String...) throws(PeftoolError) -> Int {
    try present(path, "an integer").int(named: path.joined(separator: "."))
  }

  /// The number at a path of keys.
  ///
  /// - Throws: `damaged` where it is missing or no number; the reason has the path.
  package func double(at path: String...) throws(PeftoolError) -> Double {
    try present(path, "a number").double(named: path.joined(separator: "."))
  }

  /// The boolean at a path of keys.
  ///
  /// - Throws: `damaged` where it is missing or no boolean; the reason has the path.
  package func bool(at path: String...) throws(PeftoolError) -> Bool {
    try present(path, "true or false").bool(named: path.joined(separator: "."))
  }

  /// The string at a path of keys.
  ///
  /// - Throws: `damaged` where it is missing or no string; the reason has the path.
  package func string(at path: String...) throws(PeftoolError) -> String {
    try present(path, "a string").string(named: path.joined(separator: "."))
  }

  /// The elements of the array at a path of keys.
  ///
  /// - Throws: `damaged` where it is missing or no array; the reason has the path.
  package func array(at path: String...) throws(PeftoolError) -> [JSON] {
    try present(path, "an array").array(named: path.joined(separator: "."))
  }

  /// The members of the object at a path of keys.
  ///
  /// - Throws: `damaged` where it is missing or no object; the reason has the path.
  package func object(at path: String...) throws(PeftoolError) -> [Member] {
    try present(path, "an object").object(named: path.joined(separator: "."))
  }

  private func present(_ path: [String], _ expected: String) throws(PeftoolError) -> JSON {
    guard let value = value(at: path) else {
      throw PeftoolError(
        .damaged, "\(path.joined(separator: ".").printable) is missing, expected \(expected)")
    }
    return value
  }

  /// The error for a value that is not what a place in a file needs.
  package func unfit(_ place: String, _ expected: String) -> PeftoolError {
    PeftoolError(.damaged, "\(place.printable) is \(summary), expected \(expected)")
  }

  /// An object with some members in place of those of their names, or after all others.
  ///
  /// - Throws: `damaged` where this is no object.
  package func replacing(_ members: [(String, JSON)]) throws(PeftoolError) -> JSON {
    var all = try object(named: "the configuration")
    for (key, value) in members {
      if let place = all.firstIndex(where: { $0.key == key }) {
        all[place] = .init(key, value)
      } else {
        all.append(.init(key, value))
      }
    }
    return .object(all)
  }
}
