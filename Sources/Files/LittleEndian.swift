// Numbers as every format here writes them: the lowest byte first.

extension [UInt8] {
  /// `count` bytes as one number, 8 at most; they lie within the array.
  package func littleEndian(at position: Int, count: Int) -> UInt64 {
    var value: UInt64 = 0
    for place in (position..<position + count).reversed() {
      value = value << 8 | UInt64(self[place])
    }
    return value
  }

  /// Adds the lowest `count` bytes of a number.
  package mutating func append(littleEndian value: UInt64, count: Int) {
    for place in 0..<count { append(UInt8(truncatingIfNeeded: value >> (8 * UInt64(place)))) }
  }

  /// Adds all bytes of a number.
  package mutating func append<I: FixedWidthInteger>(littleEndian value: I) {
    append(littleEndian: UInt64(truncatingIfNeeded: value), count: I.bitWidth / 8)
  }
}

extension UInt64 {
  /// The lowest `count` bytes.
  package func littleEndianBytes(_ count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: self, count: count)
    return bytes
  }
}
