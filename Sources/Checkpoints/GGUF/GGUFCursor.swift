import Files

/// Reads a GGUF file's head from its first byte on, by pieces, and never past its end.
///
/// Every count is compared with the bytes that are left before anything is made of it.
struct GGUFCursor {
  /// The size of the file.
  let byteCount: Int
  /// The offset of the next byte.
  private(set) var position = 0

  private let file: InputFile?
  private var buffer: [UInt8]
  private var bufferStart = 0

  private static let pieceByteCount = 1 << 18

  /// Reads an open file.
  init(_ file: InputFile) {
    self.file = file
    byteCount = file.byteCount
    buffer = []
  }

  /// Reads the first bytes of a file of `byteCount` bytes; what lies behind them is no head.
  init(_ bytes: [UInt8], fileByteCount: Int) {
    file = nil
    byteCount = fileByteCount
    buffer = bytes
  }

  /// The bytes from here to the end, of the file or of what a head may have.
  var left: Int { min(byteCount, GGUFHeader.maximumByteCount) - position }

  /// The next `count` bytes.
  mutating func bytes(_ count: Int, _ what: String) throws(PeftoolError) -> [UInt8] {
    var bytes: [UInt8] = []
    try append(count, to: &bytes, what)
    return bytes
  }

  /// Adds the next `count` bytes to others.
  mutating func append(
    _ count: Int, to bytes: inout [UInt8], _ what: String
  ) throws(PeftoolError) {
    // What is larger than a piece does not go through the buffer.
    if let file, count > Self.pieceByteCount, count <= left {
      bytes += try file.bytes(position..<position + count)
      position += count
      return
    }
    let start = try take(count, what)
    bytes += buffer[start..<start + count]
  }

  /// Adds a string with its length before it to other bytes.
  mutating func appendString(to bytes: inout [UInt8]) throws(PeftoolError) {
    let offset = position
    let start = try take(8, "the length of a string")
    let length = buffer.littleEndian(at: start, count: 8)
    bytes += buffer[start..<start + 8]
    guard length > 0 else { return }
    guard length <= UInt64(left) else { throw tooMany(length, "bytes of a string", 1, at: offset) }
    try append(Int(length), to: &bytes, "a string")
  }

  /// The next number of `width` bytes.
  mutating func integer(_ width: Int, _ what: String) throws(PeftoolError) -> UInt64 {
    let start = try take(width, what)
    return buffer.littleEndian(at: start, count: width)
  }

  /// Steps over `count` bytes and gives their place in the buffer.
  private mutating func take(_ count: Int, _ what: String) throws(PeftoolError) -> Int {
    guard count <= left else { throw short(count, what) }
    if position + count > bufferStart + buffer.count {
      guard let file else { throw short(count, what) }
      let end = min(byteCount, position + max(count, Self.pieceByteCount))
      buffer = try file.bytes(position..<end)
      bufferStart = position
    }
    defer { position += count }
    return position - bufferStart
  }

  /// A count of things of at least `leastByteCount` bytes each, all of which the file has room for.
  ///
  /// - Throws: `damaged` where it has not, `unsupported` where there are more than `maximum`.
  mutating func count(
    _ what: String, leastByteCount: Int, atMost maximum: Int = .max
  ) throws(PeftoolError) -> Int {
    let offset = position
    let count = try integer(8, "the number of \(what)")
    guard count <= UInt64(left / leastByteCount) else {
      throw tooMany(count, what, leastByteCount, at: offset)
    }
    guard count <= UInt64(maximum) else {
      throw PeftoolError(
        .unsupported, "\(count) \(what), expected at most \(maximum)", offset: offset)
    }
    return Int(count)
  }

  /// A string: its length, then its bytes.
  mutating func string(_ what: String) throws(PeftoolError) -> [UInt8] {
    try bytes(count("bytes of \(what)", leastByteCount: 1), what)
  }

  private func tooMany(
    _ count: UInt64, _ what: String, _ leastByteCount: Int, at offset: Int
  ) -> PeftoolError {
    PeftoolError(
      .damaged,
      "\(count) \(what) need at least \(leastByteCount) bytes each, "
        + (byteCount > GGUFHeader.maximumByteCount
          ? "a head has at most \(GGUFHeader.maximumByteCount)" : "the file has \(left) more"),
      offset: offset)
  }

  private func short(_ count: Int, _ what: String) -> PeftoolError {
    PeftoolError(
      .damaged, "\(what) needs \(count) bytes, the head has \(max(0, left)) more at most",
      offset: position)
  }
}
