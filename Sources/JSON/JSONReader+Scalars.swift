import Files

extension JSONReader {
  /// Goes past a string, escapes checked.
  ///
  /// Gives what stands between the quotes, and whether there
  /// are escapes in it.
  mutating func stringToken() throws(PeftoolError) -> (range: Range<Int>, hasEscapes: Bool) {
    skipSpace()
    guard byte == UInt8(ascii: "\"") else { throw unexpected("a string") }
    position += 1
    let start = position
    var hasEscapes = false
    while position < bytes.count {
      switch bytes[position] {
      case UInt8(ascii: "\""):
        position += 1
        return (start..<(position - 1), hasEscapes)
      case UInt8(ascii: "\\"):
        hasEscapes = true
        _ = try escape()
      case 0x00...0x1F:
        throw unexpected("an escape: control characters may not stand in a string")
      default:
        position += 1
      }
    }
    throw unexpected("'\"'")
  }

  /// Reads a string.
  mutating func string() throws(PeftoolError) -> String {
    let (range, hasEscapes) = try stringToken()
    if !hasEscapes { return String(decoding: bytes[range], as: UTF8.self) }
    let end = position
    position = range.lowerBound
    var text: [UInt8] = []
    while position < range.upperBound {
      if bytes[position] == UInt8(ascii: "\\") {
        text.append(contentsOf: Unicode.UTF8.encode(try escape()) ?? .init())
      } else {
        text.append(bytes[position])
        position += 1
      }
    }
    position = end
    return String(decoding: text, as: UTF8.self)
  }

  private mutating func escape() throws(PeftoolError) -> Unicode.Scalar {
    let start = position
    position += 1
    let letter = byte
    position += 1
    switch letter {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"):
      return Unicode.Scalar(letter ?? 0)
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{C}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"): break
    default:
      position -= 1
      throw unexpected("one of \" \\ / b f n r t u after '\\'")
    }
    let unit = try fourHexDigits()
    if let scalar = Unicode.Scalar(unit) { return scalar }
    // What is no scalar is a surrogate: a high one with a low one after it, or an error.
    if unit < 0xDC00, byte == UInt8(ascii: "\\"), position + 1 < bytes.count,
      bytes[position + 1] == UInt8(ascii: "u")
    {
      position += 2
      let low = try fourHexDigits()
      if (0xDC00...0xDFFF).contains(low),
        let scalar = Unicode.Scalar(0x10000 + (unit - 0xD800) << 10 + (low - 0xDC00))
      {
        return scalar
      }
    }
    throw PeftoolError(
      .damaged, "a lone surrogate, expected a pair such as \\ud83d\\ude00",
      offset: baseOffset + start)
  }

  private mutating func fourHexDigits() throws(PeftoolError) -> UInt32 {
    var value: UInt32 = 0
    for _ in 0..<4 {
      let digit: UInt8
      let byte = byte ?? 0
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
      case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
      default: throw unexpected("a hexadecimal digit")
      }
      value = value << 4 | UInt32(digit)
      position += 1
    }
    return value
  }

  /// Longer numbers are refused, since a copy of one is taken to read it.
  private static let maximumNumberByteCount = 100_000

  /// Goes past a number and gives the range of its text.
  mutating func number() throws(PeftoolError) -> Range<Int> {
    skipSpace()
    let start = position
    if byte == UInt8(ascii: "-") { position += 1 }
    if byte == UInt8(ascii: "0") {
      position += 1
    } else {
      try digits()
    }
    var isScaled = false
    if byte == UInt8(ascii: ".") {
      position += 1
      try digits()
    }
    if byte == UInt8(ascii: "e") || byte == UInt8(ascii: "E") {
      isScaled = true
      position += 1
      if byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-") { position += 1 }
      try digits()
    }
    let range = start..<position
    guard range.count <= Self.maximumNumberByteCount else {
      throw PeftoolError(
        .unsupported,
        "a number of \(range.count) characters, expected at most \(Self.maximumNumberByteCount)",
        offset: baseOffset + start)
    }
    // 10³⁰⁸ is a double, so that shorter numbers without an exponent are, too.
    if isScaled || range.count > 308 {
      guard Double(String(decoding: bytes[range], as: UTF8.self))?.isFinite == true else {
        throw PeftoolError(
          .damaged, "a number out of the range of doubles", offset: baseOffset + start)
      }
    }
    return range
  }

  private mutating func digits() throws(PeftoolError) {
    let start = position
    while let byte, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { position += 1 }
    if position == start { throw unexpected("a digit") }
  }
}
