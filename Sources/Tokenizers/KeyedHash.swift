/// Hash values with a key of their own in each process, so that no file can hold texts that all
/// have the same.
///
/// Eight bytes at a time are mixed in by a multiplication whose halves are folded, as in wyhash.
enum KeyedHash {
  private static let key = UInt64.random(in: .min ... .max)
  /// An odd number without a pattern: 2⁶⁴ divided by the golden ratio.
  private static let factor: UInt64 = 0x9E37_79B9_7F4A_7C15

  /// The hash of a number of 64 bits.
  @inline(__always)
  static func value(of number: UInt64) -> UInt64 {
    folded(number ^ key, factor)
  }

  /// The hash of a text.
  @inline(__always)
  static func value(of text: Span<UInt8>) -> UInt64 {
    var hash = key ^ UInt64(truncatingIfNeeded: text.count)
    var place = 0
    while place + 8 <= text.count {
      hash = folded(hash ^ word(text, place, 8), factor)
      place += 8
    }
    if place < text.count {
      hash = folded(hash ^ word(text, place, text.count - place), factor)
    }
    return folded(hash, factor)
  }

  @inline(__always)
  private static func word(_ text: Span<UInt8>, _ place: Int, _ count: Int) -> UInt64 {
    var word: UInt64 = 0
    for index in 0..<count { word = word << 8 | UInt64(text[place + index]) }
    return word
  }

  @inline(__always)
  private static func folded(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let product = a.multipliedFullWidth(by: b)
    return product.high ^ product.low
  }
}
