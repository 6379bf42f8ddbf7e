package import Files

/// A YAML value with the line that it begins in.
///
/// Scalars stay text: whoever asks decides what they are. Aliases have become what they stand for.
package struct YAML: Sendable {
  /// The line, from 1.
  package let line: Int
  /// What stands there.
  package let content: Content

  /// What a value may be.
  package indirect enum Content: Sendable {
    /// A scalar without quotes: a number, `true`, a word, or nothing at all.
    case plain(String)
    /// A scalar in quotes or as a block, which is text whatever it looks like.
    case text(String)
    case sequence([YAML])
    /// Keys in their order; none comes twice.
    case mapping([Member])
  }

  /// A key with its value.
  package struct Member: Sendable {
    /// The key.
    package let key: String
    /// The line that the key stands in, from 1.
    package let line: Int
    /// What it names.
    package let value: YAML
  }

  /// What peftool takes of a YAML text.
  package struct Limits: Sendable {
    /// The most bytes.
    package let byteCount: Int
    /// The most values in all, those that aliases stand for among them.
    package let valueCount: Int
    /// The most levels of sequences and mappings in each other.
    package let depth: Int

    package init(byteCount: Int, valueCount: Int, depth: Int) {
      self.byteCount = byteCount
      self.valueCount = valueCount
      self.depth = depth
    }

    /// For files that people write: 256 KiB, 10,000 values, 16 levels.
    package static let recipe = Limits(byteCount: 256 << 10, valueCount: 10_000, depth: 16)
  }

  init(line: Int, _ content: Content) {
    self.line = line
    self.content = content
  }

  /// Reads a text that holds one document in UTF-8.
  ///
  /// - Throws: `damaged` where it is no YAML, has no value or a key twice, or an alias without its
  ///   anchor; `unsupported` for tags, keys that are no text, several documents and what is beyond a
  ///   limit. The reason begins with the line.
  package init(parsing bytes: [UInt8], limits: Limits = .recipe) throws(PeftoolError) {
    guard bytes.count <= limits.byteCount else {
      throw PeftoolError(
        .unsupported, "\(bytes.count) bytes of YAML, expected at most \(limits.byteCount)")
    }
    var reader = try YAMLReader(bytes, limits)
    self = try reader.document()
  }

  /// Reads a file that holds one document.
  ///
  /// - Throws: as `init(parsing:)`, and `io`; with the path.
  package init(opening path: String, limits: Limits = .recipe) throws(PeftoolError) {
    let file = try InputFile(opening: path)
    guard file.byteCount <= limits.byteCount else {
      throw PeftoolError(
        .unsupported, "\(file.byteCount) bytes of YAML, expected at most \(limits.byteCount)",
        path: path)
    }
    do throws(PeftoolError) {
      try self.init(parsing: file.bytes(0..<file.byteCount), limits: limits)
    } catch {
      throw error.at(path: path)
    }
  }
}
