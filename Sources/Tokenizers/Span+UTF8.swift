/// Spans of UTF-8 that has been checked before.
extension Span<UInt8> {
  /// Where the character that begins at a place ends.
  func endOfCharacter(at place: Int) -> Int {
    place + Self.byteCount(of: self[place])
  }

  /// The character that begins at a place.
  func scalar(at place: Int) -> Unicode.Scalar {
    let first = UInt32(self[place])
    let value =
      switch Self.byteCount(of: self[place]) {
      case 1: first
      case 2: (first & 0x1F) << 6 | tail(place + 1)
      case 3: (first & 0x0F) << 12 | tail(place + 1) << 6 | tail(place + 2)
      default:
        (first & 0x07) << 18 | tail(place + 1) << 12 | tail(place + 2) << 6 | tail(place + 3)
      }
    // All but what UTF-8 does not have is a scalar.
    return Unicode.Scalar(value) ?? "\u{FFFD}"
  }

  /// The character that ends at a place, and where it begins.
  func scalar(before place: Int) -> (scalar: Unicode.Scalar, start: Int) {
    var start = place - 1
    while start > 0, self[start] & 0xC0 == 0x80 { start -= 1 }
    return (scalar(at: start), start)
  }

  /// Where another text is found first, from a place on.
  func firstPlace(of other: Span<UInt8>, from place: Int) -> Int? {
    precondition(!other.isEmpty)
    let first = other[0]
    var start = place
    while start + other.count <= count {
      if self[start] == first, matches(other, at: start) { return start }
      start += 1
    }
    return nil
  }

  /// Whether another text, which ends within this one, stands at a place.
  func matches(_ other: Span<UInt8>, at place: Int) -> Bool {
    for index in other.indices where self[place + index] != other[index] { return false }
    return true
  }

  private func tail(_ place: Int) -> UInt32 { UInt32(self[place] & 0x3F) }

  /// The bytes of a character, from its first.
  private static func byteCount(of first: UInt8) -> Int {
    switch first {
    case ..<0x80: 1
    case ..<0xE0: 2
    case ..<0xF0: 3
    default: 4
    }
  }
}

extension [UInt8] {
  /// Appends a part of a span.
  mutating func append(_ text: Span<UInt8>, _ range: Range<Int>) {
    // The buffer is read inside the closure only.
    unsafe text.extracting(range).withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
  }

  /// Appends a character.
  mutating func append(_ scalar: Unicode.Scalar) {
    append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter)
  }
}
