import Checkpoints
import Files

/// The metadata of a GGUF model, asked for by type: a key of another type is an error, not absent.
struct GGUFMetadata {
  let header: GGUFHeader
  /// `general.architecture`, which the keys of the model's own begin with.
  let architecture: String

  init(_ header: GGUFHeader) throws(PeftoolError) {
    self.header = header
    guard let value = header["general.architecture"] else {
      throw PeftoolError(.damaged, "has no general.architecture")
    }
    guard let text = value.text else {
      throw Self.unfit("general.architecture", value, "a string")
    }
    architecture = text
  }

  /// The model's own key of that name, such as `llama.block_count`.
  func own(_ name: String) -> String { "\(architecture).\(name)" }

  func int(_ key: String) throws(PeftoolError) -> Int? {
    guard let value = header[key] else { return nil }
    guard let int = value.int, int >= 0 else {
      throw Self.unfit(key, value, "a number from 0 to 2^63 - 1")
    }
    return int
  }

  /// A positive number that must be there, no larger than any model has.
  func size(_ key: String) throws(PeftoolError) -> Int {
    guard let size = try int(key) else { throw PeftoolError(.damaged, "has no \(key)") }
    guard (1...Self.largestSize).contains(size) else {
      throw PeftoolError(.damaged, "\(key) is \(size), expected 1 to \(Self.largestSize)")
    }
    return size
  }

  private static let largestSize = 1 << 31

  /// A number as JSON, with the fewest digits that give it back in its own precision.
  func number(_ key: String) throws(PeftoolError) -> (value: Double, text: String)? {
    guard let value = header[key] else { return nil }
    guard let double = value.double, double.isFinite else {
      throw Self.unfit(key, value, "a number")
    }
    return (double, value.summary)
  }

  func bool(_ key: String) throws(PeftoolError) -> Bool? {
    guard let value = header[key] else { return nil }
    guard case .bool(let bool) = value else { throw Self.unfit(key, value, "a boolean") }
    return bool
  }

  func text(_ key: String) throws(PeftoolError) -> String? {
    guard let value = header[key] else { return nil }
    guard let text = value.text else { throw Self.unfit(key, value, "a string of UTF-8") }
    return text
  }

  func texts(_ key: String) throws(PeftoolError) -> [String]? {
    guard let value = header[key] else { return nil }
    guard case .array(let array) = value, let strings = array.strings else {
      throw Self.unfit(key, value, "strings")
    }
    var texts: [String] = []
    texts.reserveCapacity(strings.count)
    for (place, bytes) in strings.enumerated() {
      guard let text = String(validating: bytes, as: UTF8.self) else {
        throw PeftoolError(.damaged, "element \(place) of \(key) is no UTF-8")
      }
      texts.append(text)
    }
    return texts
  }

  func ints(_ key: String) throws(PeftoolError) -> [Int]? {
    guard let value = header[key] else { return nil }
    guard case .array(let array) = value, let integers = array.integers else {
      throw Self.unfit(key, value, "integers")
    }
    return integers
  }

  func numbers(_ key: String) throws(PeftoolError) -> [Double]? {
    guard let value = header[key] else { return nil }
    guard case .array(let array) = value, let numbers = array.numbers else {
      throw Self.unfit(key, value, "numbers")
    }
    return numbers
  }

  private static func unfit(_ key: String, _ value: GGUFValue, _ expected: String) -> PeftoolError {
    PeftoolError(.damaged, "\(key) is \(value.summary.printable), expected \(expected)")
  }
}
