package import Files

/// A JSON value; numbers are their text as it stood, and members keep their order.
package indirect enum JSON: Equatable, Sendable {
  case null
  case bool(Bool)
  /// A number's text, which follows RFC 8259: `4`, `4.0` and `4e0` are three different values.
  case number(String)
  case string(String)
  case array([JSON])
  case object([Member])

  /// A key with its value.
  package struct Member: Equatable, Sendable {
    /// The key, without its quotes and escapes.
    package let key: String
    /// What it names.
    package let value: JSON

    package init(_ key: String, _ value: JSON) {
      self.key = key
      self.value = value
    }
  }

  /// What peftool takes of a JSON text: bytes, values in all, and levels of nesting.
  package struct Limits: Sendable {
    /// The most bytes.
    package let byteCount: Int
    /// The most values in all.
    package let valueCount: Int
    /// The most levels of arrays and objects in each other.
    package let depth: Int

    package init(byteCount: Int, valueCount: Int, depth: Int) {
      self.byteCount = byteCount
      self.valueCount = valueCount
      self.depth = depth
    }

    /// For configuration files: 16 MiB, a million values, 64 levels.
    package static let configuration = Limits(
      byteCount: 16 << 20, valueCount: 1_000_000, depth: 64)
  }

  /// Reads a text that holds one JSON value.
  ///
  /// `JSONReader` goes over the text first and refuses what json-c would take against RFC 8259,
  /// or twice (duplicate keys); json-c then builds the tree. Numbers come from the text itself,
  /// because json-c cuts integers off at 2⁶⁴.
  /// - Throws: `damaged` with the offset, `unsupported` where a limit is exceeded.
  package init(parsing bytes: [UInt8], limits: Limits = .configuration) throws(PeftoolError) {
    guard bytes.count <= limits.byteCount else {
      throw PeftoolError(
        .unsupported, "\(bytes.count) bytes of JSON, expected at most \(limits.byteCount)")
    }
    var reader = try JSONReader(
      bytes, maximumDepth: limits.depth, maximumValueCount: limits.valueCount)
    try reader.skip(isStrict: true)
    try reader.finish()
    try self.init(building: bytes, depth: limits.depth)
  }

  /// Reads a file that holds one JSON value.
  ///
  /// - Throws: as `init(parsing:)`, and `io`; with the path.
  package init(
    opening path: String, limits: Limits = .configuration
  ) throws(PeftoolError) {
    try self.init(reading: InputFile(opening: path), limits: limits)
  }

  /// Reads an open file that holds one JSON value.
  ///
  /// - Throws: as `init(parsing:)`, and `io`; with the path.
  package init(reading file: InputFile, limits: Limits = .configuration) throws(PeftoolError) {
    guard file.byteCount <= limits.byteCount else {
      throw PeftoolError(
        .unsupported, "\(file.byteCount) bytes of JSON, expected at most \(limits.byteCount)",
        path: file.path)
    }
    do throws(PeftoolError) {
      try self.init(parsing: file.bytes(0..<file.byteCount), limits: limits)
    } catch {
      throw error.at(path: file.path)
    }
  }
}
