import Files
import JSON

/// The fields of a `config.json`, where null is as good as missing.
struct ConfigurationFields {
  private let json: JSON
  /// What the fields are under, for messages: empty or `rope_parameters.`.
  private let place: String

  init(_ json: JSON, under place: String = "") {
    self.json = json
    self.place = place
  }

  subscript(key: String) -> JSON? {
    guard let value = json[key], value != .null else { return nil }
    return value
  }

  /// Whether a field is there and is null.
  func isNull(_ key: String) -> Bool { json[key] == .null }

  /// A size from 1 to a limit.
  func size(
    _ key: String, default missing: Int? = nil, limit: Int = 1 << 30
  ) throws(PeftoolError) -> Int {
    guard let value = self[key] else {
      guard let missing, missing > 0 else {
        throw PeftoolError(.damaged, "has no \(place)\(key)")
      }
      return missing
    }
    let size = try value.int(named: place + key)
    guard (1...limit).contains(size) else { throw value.unfit(place + key, "1 to \(limit)") }
    return size
  }

  /// A finite number.
  func double(_ key: String) throws(PeftoolError) -> Double? {
    guard let value = self[key] else { return nil }
    let number = try value.double(named: place + key)
    guard number.isFinite else { throw value.unfit(place + key, "a finite number") }
    return number
  }

  /// A number that there has to be, above a limit.
  func required(_ key: String, above limit: Double = 0) throws(PeftoolError) -> Double {
    guard let number = try double(key) else {
      throw PeftoolError(.damaged, "has no \(place)\(key)")
    }
    guard number > limit else {
      throw PeftoolError(.damaged, "\(place)\(key) is \(number), expected more than \(limit)")
    }
    return number
  }

  func bool(_ key: String) throws(PeftoolError) -> Bool? {
    try self[key]?.bool(named: place + key)
  }
}
