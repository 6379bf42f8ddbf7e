import Files
import JSON

/// One part of a `tokenizer.json`, an object with a type, as it is read.
struct Part {
  let json: JSON
  /// Where it stands, such as `normalizer.normalizers[0]`.
  let place: String
  /// What it is, from `type`.
  let type: String

  /// - Throws: `damaged` where it is no object with a type, `unsupported` where no known type is spelt
  ///   so.
  init(_ json: JSON, at place: String) throws(PeftoolError) {
    guard case .object = json else { throw json.unfit(place, "an object") }
    guard let type = json["type"] else {
      throw PeftoolError(.damaged, "\(place) has no type")
    }
    self.json = json
    self.place = place
    self.type = try type.string(named: "\(place).type")
    // Known types are ASCII; Swift would take `NF` + U+212A + `C`, the sign of kelvin, for `NFKC`.
    guard self.type.utf8.allSatisfy({ $0 < 0x80 }) else { throw unknown }
  }

  /// The error for a type that peftool does not know.
  var unknown: PeftoolError {
    PeftoolError(
      .unsupported, "\(place) is \"\(type.printable)\", which peftool does not know")
  }

  /// Refuses members that are not named: what they say may change the tokens.
  ///
  /// - Throws: `unsupported` with the first of them.
  func hasOnly(_ keys: String...) throws(PeftoolError) {
    for member in try json.object(named: place)
    where member.key != "type" && !keys.contains(where: member.key.isExactly) {
      throw PeftoolError(
        .unsupported,
        "\(place).\(member.key.printable) is nothing that peftool knows of \"\(type)\"")
    }
  }

  /// A member that must be there.
  ///
  /// - Throws: `damaged` where it is not.
  func member(_ key: String) throws(PeftoolError) -> JSON {
    guard let value = json[key] else {
      throw PeftoolError(.damaged, "\(place).\(key) is missing")
    }
    return value
  }

  /// A boolean; without a default it must be there.
  ///
  /// - Throws: `damaged` where it is missing or of another type.
  func bool(_ key: String, default: Bool? = nil) throws(PeftoolError) -> Bool {
    if json[key] == nil, let value = `default` { return value }
    return try member(key).bool(named: "\(place).\(key)")
  }

  /// A string that must be there.
  ///
  /// - Throws: `damaged` where it is missing or of another type.
  func string(_ key: String) throws(PeftoolError) -> String {
    try member(key).string(named: "\(place).\(key)")
  }

  /// A string that is one character.
  ///
  /// - Throws: `damaged` where it is missing or anything else.
  func scalar(_ key: String) throws(PeftoolError) -> Unicode.Scalar {
    let text = try string(key)
    guard let scalar = text.unicodeScalars.first, text.unicodeScalars.count == 1 else {
      throw try member(key).unfit("\(place).\(key)", "one character")
    }
    return scalar
  }

  /// An integer from 0 to a million.
  ///
  /// - Throws: `damaged` where it is missing or anything else.
  func count(_ key: String) throws(PeftoolError) -> Int {
    let value = try member(key).int(named: "\(place).\(key)")
    guard (0...1_000_000).contains(value) else {
      throw try member(key).unfit("\(place).\(key)", "0 to 1000000")
    }
    return value
  }

  /// The parts of a sequence.
  ///
  /// - Throws: `damaged` where it is missing or one of them is no part.
  func parts(_ key: String) throws(PeftoolError) -> [Part] {
    var parts: [Part] = []
    for (index, element) in try member(key).array(named: "\(place).\(key)").enumerated() {
      parts.append(try Part(element, at: "\(place).\(key)[\(index)]"))
    }
    return parts
  }

  /// The pattern of `Split` or `Replace`: `{"String": …}` or `{"Regex": …}`.
  ///
  /// - Throws: `damaged` where it is neither, or no regular expression.
  func pattern() throws(PeftoolError) -> TextPattern {
    let members = try member("pattern").object(named: "\(place).pattern")
    guard members.count == 1, let member = members.first,
      ["String", "Regex"].contains(member.key)
    else {
      throw try self.member("pattern").unfit("\(place).pattern", "a String or a Regex")
    }
    let text = try member.value.string(named: "\(place).pattern.\(member.key)")
    do throws(PeftoolError) {
      return try member.key == "Regex" ? TextPattern(expression: text) : TextPattern(literal: text)
    } catch {
      throw PeftoolError(error.kind, "\(place).pattern: \(error.reason)")
    }
  }
}
