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
  /// A flag that the file does not have; the library then does not take it.
  private let missingFlag: String?

  /// The most bytes of what a token is searched by, before the normalizer and after: a search takes
  /// at most this many steps at each byte of a text.
  static let maximumByteCount = 1024

  init(_ json: JSON) throws(PeftoolError) {
    let content = try json.string(at: "content")
    token = content
    id = try json.int(at: "id")
    guard (0..<TokenizerFile.maximumTokenCount).contains(id) else {
      throw PeftoolError(
        .damaged,
        "added token \"\(token.printable)\" has the number \(id), expected 0 to "
          + "\(TokenizerFile.maximumTokenCount - 1)")
    }
    var missing: String?
    func flag(_ key: String) throws(PeftoolError) -> Bool {
      guard let value = json[key] else {
        missing = missing ?? key
        return false
      }
      return try value.bool(named: "\(key) of added token \"\(content.printable)\"")
    }
    isSpecial = try flag("special")
    isNormalized = try flag("normalized")
    stripsLeft = try flag("lstrip")
    stripsRight = try flag("rstrip")
    isSingleWord = try flag("single_word")
    missingFlag = missing
  }

  /// - Throws: `damaged` where a flag is missing, `unsupported` where the text is too long to be
  ///   looked for.
  func check() throws(PeftoolError) {
    if let missingFlag {
      throw PeftoolError(
        .damaged,
        "\(missingFlag) of added token \"\(token.printable)\" is missing, expected true or false")
    }
    try check(Array(token.utf8))
  }

  /// - Throws: `unsupported` where what the token is searched by is too long.
  func check(_ text: [UInt8], _ stage: String = "") throws(PeftoolError) {
    guard text.count <= Self.maximumByteCount else {
      throw PeftoolError(
        .unsupported,
        "added token \"\(token.printable)\" has \(stage)\(text.count) bytes, expected at most "
          + "\(Self.maximumByteCount)")
    }
  }
}
