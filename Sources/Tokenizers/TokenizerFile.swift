package import Files
package import JSON

/// A `tokenizer.json` of the `tokenizers` library whose model is BPE, as it stands.
///
/// Read a token at a time: vocabulary and merges make up nearly all of the text, and as a tree of
/// JSON they would take ten times its size.
package struct TokenizerFile: Sendable {
  /// The tokens of the model with their numbers, in the order of the file.
  package private(set) var vocabulary: [(token: String, id: Int)] = []
  /// The merges in their order.
  package private(set) var merges: [(left: String, right: String)] = []
  /// The tokens beside the model's.
  package private(set) var addedTokens: [AddedToken] = []
  /// The other members at the top, and those of the model.
  private(set) var members: [String: JSON] = [:]
  private(set) var modelMembers: [String: JSON] = [:]
  private var hasMerges = false

  /// Twice what Llama 3 and Mistral Nemo have, the largest of the families.
  private static let maximumByteCount = 32 << 20
  private static let maximumValueCount = 2_000_000
  /// For all members but the vocabulary, the merges and the added tokens, which are small.
  private static let smallLimits = JSON.Limits(
    byteCount: 4 << 20, valueCount: 100_000, depth: maximumDepth)
  private static let maximumDepth = 64
  /// No model has a larger vocabulary.
  package static let maximumTokenCount = 1_000_000
  private static let maximumAddedTokenCount = 100_000

  /// Reads a file.
  ///
  /// - Throws: `io`, `damaged`, and `unsupported` for another model than BPE; with the path.
  package init(opening path: String) throws(PeftoolError) {
    let file = try InputFile(opening: path)
    do throws(PeftoolError) {
      guard file.byteCount <= Self.maximumByteCount else {
        throw PeftoolError(
          .unsupported, "\(file.byteCount) bytes, expected at most \(Self.maximumByteCount)")
      }
      try self.init(parsing: file.bytes(0..<file.byteCount))
    } catch {
      throw error.at(path: path)
    }
  }

  /// Reads the text of a file.
  ///
  /// - Throws: `damaged`, and `unsupported` for another model than BPE.
  package init(parsing bytes: [UInt8]) throws(PeftoolError) {
    try read(bytes)
  }

  /// A member at the top; null where it is missing.
  package subscript(key: String) -> JSON { members[key] ?? .null }

  /// A member of the model; null where it is missing.
  package func model(_ key: String) -> JSON { modelMembers[key] ?? .null }

  private mutating func read(_ bytes: [UInt8]) throws(PeftoolError) {
    var reader = try JSONReader(
      bytes, maximumDepth: Self.maximumDepth, maximumValueCount: Self.maximumValueCount)
    var names: Set<ExactName> = []
    // The closures below cannot take `self`, which is being changed.
    var found = self
    try reader.readObject { (reader, key, offset) throws(PeftoolError) in
      guard names.insert(ExactName(key)).inserted else {
        throw PeftoolError(.damaged, "\"\(key.printable)\" stands twice", offset: offset)
      }
      switch key {
      case "model": try found.readModel(&reader, bytes)
      case "added_tokens":
        try reader.readArray { (reader) throws(PeftoolError) in
          guard found.addedTokens.count < Self.maximumAddedTokenCount else {
            throw PeftoolError(
              .unsupported,
              "has more than \(Self.maximumAddedTokenCount) added tokens", offset: reader.offset)
          }
          found.addedTokens.append(try AddedToken(Self.tree(&reader, bytes)))
        }
      default: found.members[key] = try Self.tree(&reader, bytes)
      }
    }
    try reader.finish()
    guard names.contains(ExactName("model")) else { throw PeftoolError(.damaged, "has no model") }
    self = found
    // GPT-2's own file does not name the kind of its model.
    guard modelMembers["type"] == nil || model("type") == .string("BPE") else {
      throw PeftoolError(
        .unsupported, "its model is \(model("type").summary), expected \"BPE\"")
    }
    guard !vocabulary.isEmpty else { throw PeftoolError(.damaged, "its model has no vocab") }
    guard hasMerges else { throw PeftoolError(.damaged, "its model has no merges") }
  }

  private mutating func readModel(
    _ reader: inout JSONReader, _ bytes: [UInt8]
  ) throws(PeftoolError) {
    var names: Set<ExactName> = []
    var found = self
    try reader.readObject { (reader, key, offset) throws(PeftoolError) in
      guard names.insert(ExactName(key)).inserted else {
        throw PeftoolError(.damaged, "\"\(key.printable)\" stands twice", offset: offset)
      }
      switch key {
      // Of a model of another kind only that kind is told.
      case "vocab" where try reader.nextKind() != .object: try reader.skip()
      case "vocab":
        try reader.readObject { (reader, token, offset) throws(PeftoolError) in
          guard let id = Int(try reader.readNumber()), (0..<Self.maximumTokenCount).contains(id)
          else {
            throw PeftoolError(
              .damaged,
              "the number of token \"\(token.printable)\" is none from 0 to "
                + "\(Self.maximumTokenCount - 1)", offset: offset)
          }
          guard found.vocabulary.count < Self.maximumTokenCount else {
            throw PeftoolError(
              .unsupported, "has more than \(Self.maximumTokenCount) tokens", offset: offset)
          }
          found.vocabulary.append((token, id))
        }
      case "merges":
        found.hasMerges = true
        try reader.readArray { (reader) throws(PeftoolError) in
          if let merge = try Self.merge(&reader) { found.merges.append(merge) }
        }
      default: found.modelMembers[key] = try Self.tree(&reader, bytes)
      }
    }
    self = found
  }

  /// A merge: two strings, or as before tokenizers 0.20 one with a space between the parts, where
  /// lines of a `merges.txt` that tell its version count for nothing.
  private static func merge(
    _ reader: inout JSONReader
  ) throws(PeftoolError) -> (left: String, right: String)? {
    let offset = reader.offset
    if try reader.nextKind() == .string {
      let text = try reader.readString()
      if text.hasPrefix("#version") { return nil }
      let parts = text.utf8.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
      guard parts.count == 2 else {
        throw PeftoolError(
          .damaged, "merge \"\(text.printable)\" is none of two parts", offset: offset)
      }
      return (String(Substring(parts[0])), String(Substring(parts[1])))
    }
    var parts: [String] = []
    try reader.readArray { (reader) throws(PeftoolError) in
      parts.append(try reader.readString())
    }
    guard parts.count == 2 else {
      throw PeftoolError(.damaged, "a merge of \(parts.count) parts, expected 2", offset: offset)
    }
    return (parts[0], parts[1])
  }

  /// The next value as a tree.
  private static func tree(
    _ reader: inout JSONReader, _ bytes: [UInt8]
  ) throws(PeftoolError) -> JSON {
    let start = reader.offset
    try reader.skip(isStrict: true)
    return try JSON(parsing: Array(bytes[start..<reader.offset]), limits: smallLimits)
  }
}
