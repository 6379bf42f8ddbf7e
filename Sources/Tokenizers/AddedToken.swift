import Files
import JSON

/// A token that a text is searched for before it is cut (`AddedToken` of the `tokenizers` library).
package struct AddedToken: Equatable, Sendable {
  /// The text that it stands for.
  package let token: String
  /// Its number.
  package let id: Int
  /// Whether it steers the model rather than being text.
  package let isSpecial: Bool
  /// Whether it is searched for in the text after the normalizer, rather than before.
  let isNormalized: Bool
  /// Whether it takes the white space before it, and after it, along.
  let stripsLeft: Bool
  let stripsRight: Bool
  /// Whether it counts only where no letter touches it.
  let isSingleWord: Bool

  /// The most bytes of a token's text: a search takes at most this many steps at each byte.
  static let maximumByteCount = 1024

  init(_ json: JSON) throws(PeftoolError) {
    token = try json.string(at: "content")
    id = try json.int(at: "id")
    guard (0..<TokenizerFile.maximumTokenCount).contains(id) else {
      throw PeftoolError(
        .damaged,
        "added token \"\(token.printable)\" has the number \(id), expected 0 to "
          + "\(TokenizerFile.maximumTokenCount - 1)")
    }
    isSpecial = try Self.flag("special", of: token, in: json)
    isNormalized = try Self.flag("normalized", of: token, in: json)
    stripsLeft = try Self.flag("lstrip", of: token, in: json)
    stripsRight = try Self.flag("rstrip", of: token, in: json)
    isSingleWord = try Self.flag("single_word", of: token, in: json)
    guard token.utf8.count <= Self.maximumByteCount else {
      throw PeftoolError(
        .unsupported,
        "added token \"\(token.printable)\" has \(token.utf8.count) bytes, expected at most "
          + "\(Self.maximumByteCount)")
    }
  }

  private static func flag(
    _ key: String, of token: String, in json: JSON
  ) throws(PeftoolError) -> Bool {
    let place = "\(key) of added token \"\(token.printable)\""
    guard let value = json[key] else {
      throw PeftoolError(.damaged, "\(place) is missing, expected true or false")
    }
    return try value.bool(named: place)
  }
}
