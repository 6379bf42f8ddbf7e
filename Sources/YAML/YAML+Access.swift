package import Files

extension YAML {
  /// What the value is, for a message: short scalars as they stand, else the kind.
  package var summary: String {
    switch content {
    case .plain(""): "empty"
    case .plain(let text): text.printable
    case .text(let text): "\"\(text.printable)\""
    case .sequence(let elements): "a list of \(elements.count)"
    case .mapping(let members): "a mapping of \(members.count)"
    }
  }

  /// This value as a number: a plain scalar in digits, with a point and an exponent perhaps.
  ///
  /// - Throws: `damaged` with line and `place`.
  package func double(_ place: String) throws(PeftoolError) -> Double {
    guard case .plain(let text) = content, text.utf8.allSatisfy(Self.isPartOfNumber),
      let value = Double(text), value.isFinite
    else { throw unfit(place, "a number") }
    return value
  }

  /// This value as an integer that is not negative: digits only.
  ///
  /// - Throws: `damaged` with line and `place`.
  package func unsignedInteger(_ place: String) throws(PeftoolError) -> UInt64 {
    guard case .plain(let text) = content, text.utf8.allSatisfy({ (48...57).contains($0) }),
      let value = UInt64(text)
    else { throw unfit(place, "an integer from 0 on") }
    return value
  }

  /// This value as a boolean, `true` or `false`.
  ///
  /// - Throws: `damaged` with line and `place`.
  package func bool(_ place: String) throws(PeftoolError) -> Bool {
    switch content {
    case .plain("true"): return true
    case .plain("false"): return false
    default: throw unfit(place, "true or false")
    }
  }

  /// This value as text that is not empty, in quotes or not.
  ///
  /// - Throws: `damaged` with line and `place`.
  package func string(_ place: String) throws(PeftoolError) -> String {
    switch content {
    case .plain(""), .text(""), .plain("~"), .plain("null"): throw unfit(place, "a text")
    case .plain(let text), .text(let text): return text
    default: throw unfit(place, "a text")
    }
  }

  /// This value's elements.
  ///
  /// - Throws: `damaged` with line and `place`.
  package func sequence(_ place: String) throws(PeftoolError) -> [YAML] {
    guard case .sequence(let elements) = content else { throw unfit(place, "a list") }
    return elements
  }

  /// This value's members, in their order.
  ///
  /// - Throws: `damaged` with line and `place`.
  package func mapping(_ place: String) throws(PeftoolError) -> [Member] {
    guard case .mapping(let members) = content else { throw unfit(place, "a mapping") }
    return members
  }

  /// The error for a value that is not what a place in a file needs.
  package func unfit(_ place: String, _ expected: String) -> PeftoolError {
    error("\(place) is \(summary), expected \(expected)")
  }

  /// An error at this value.
  package func error(_ reason: String) -> PeftoolError {
    PeftoolError(.damaged, "line \(line): \(reason)")
  }

  /// Digits, signs, a point and an exponent; so neither `inf` nor `nan` nor `0x1`.
  private static func isPartOfNumber(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "+"),
      UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E"):
      true
    default: false
    }
  }
}
