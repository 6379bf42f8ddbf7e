import Files

/// The bytes of a pickle, taken in order from a file, a block at a time, or from memory.
struct PickleBytes {
  private let file: InputFile?
  private var block: [UInt8]
  private var blockStart: Int
  /// Where the bytes end, as an offset in the file.
  let end: Int
  /// The offset of the next byte.
  private(set) var position: Int

  private static let blockByteCount = 1 << 16

  /// The bytes of a range that lies within the file.
  init(_ file: InputFile, _ range: Range<Int>) {
    self.file = file
    block = []
    blockStart = range.lowerBound
    position = range.lowerBound
    end = range.upperBound
  }

  /// Bytes in memory.
  init(_ bytes: [UInt8]) {
    file = nil
    block = bytes
    blockStart = 0
    position = 0
    end = bytes.count
  }

  /// The bytes that are left.
  var remaining: Int { end - position }

  /// Takes one byte.
  ///
  /// - Throws: `damaged` where none is left, and as `InputFile.bytes`.
  mutating func next() throws(PeftoolError) -> UInt8 {
    if position - blockStart >= block.count { try load() }
    defer { position += 1 }
    return block[position - blockStart]
  }

  /// Takes so many bytes, as `next`; the count is compared with what is left first.
  mutating func take(_ count: Int) throws(PeftoolError) -> [UInt8] {
    guard count <= remaining else { throw cutShort(needed: count) }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    while bytes.count < count {
      if position - blockStart >= block.count { try load() }
      let start = position - blockStart
      let part = block[start..<min(block.count, start + count - bytes.count)]
      bytes += part
      position += part.count
    }
    return bytes
  }

  /// Takes an unsigned little-endian number of up to 8 bytes.
  mutating func number(byteCount: Int) throws(PeftoolError) -> UInt64 {
    var number: UInt64 = 0
    for place in 0..<byteCount { number |= UInt64(try next()) << (8 * UInt64(place)) }
    return number
  }

  /// Takes the bytes up to a line feed, which is taken as well.
  ///
  /// - Throws: `damaged` where the line is longer than `limit`, and as `next`.
  mutating func line(limit: Int) throws(PeftoolError) -> [UInt8] {
    var bytes: [UInt8] = []
    while true {
      let byte = try next()
      if byte == UInt8(ascii: "\n") { return bytes }
      guard bytes.count < limit else {
        throw PeftoolError(.damaged, "a name of more than \(limit) bytes", offset: position)
      }
      bytes.append(byte)
    }
  }

  private mutating func load() throws(PeftoolError) {
    guard remaining > 0, let file else { throw cutShort(needed: 1) }
    block = try file.bytes(position..<min(end, position + Self.blockByteCount))
    blockStart = position
  }

  private func cutShort(needed: Int) -> PeftoolError {
    PeftoolError(
      .damaged, "the pickle needs \(needed) more bytes here, \(remaining) are left",
      offset: position)
  }
}
