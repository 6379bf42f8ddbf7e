/// The characters that stand for bytes in the tokens of a byte-level BPE (`bytes_to_unicode` of
/// GPT-2's encoder.py).
///
/// A byte that is a visible character of Latin-1 stands for itself; the others have, in their order,
/// the characters from U+0100 on.
enum ByteAlphabet {
  /// The character of each byte.
  static let scalars: [Unicode.Scalar] = {
    var next: UInt32 = 0x100
    return (UInt8.min...UInt8.max).map { byte in
      if isVisible(byte) { return Unicode.Scalar(byte) }
      defer { next += 1 }
      return Unicode.Scalar(next) ?? "\u{FFFD}"
    }
  }()

  /// The byte of each character from U+0000 on; -1 for one that stands for none.
  private static let bytes: [Int16] = {
    var bytes = [Int16](repeating: -1, count: Int(scalars.map(\.value).max() ?? 0) + 1)
    for (byte, scalar) in scalars.enumerated() { bytes[Int(scalar.value)] = Int16(byte) }
    return bytes
  }()

  private static func isVisible(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: true
    default: false
    }
  }

  /// Appends the characters of bytes, as UTF-8.
  static func append(_ text: Span<UInt8>, to result: inout [UInt8]) {
    let scalars = scalars
    for index in text.indices { result.append(scalars[Int(text[index])]) }
  }

  /// Appends the bytes that characters stand for; false, and nothing is appended, where one stands
  /// for none.
  static func appendBytes(of text: Span<UInt8>, to result: inout [UInt8]) -> Bool {
    let bytes = bytes
    let count = result.count
    var place = 0
    while place < text.count {
      let value = Int(text.scalar(at: place).value)
      guard value < bytes.count, bytes[value] >= 0 else {
        result.removeLast(result.count - count)
        return false
      }
      result.append(UInt8(bytes[value]))
      place = text.endOfCharacter(at: place)
    }
    return true
  }
}
