/// A text on its way to pieces, with what must be known of where its bytes come from.
///
/// The `tokenizers` library keeps for each byte the place in the text before the normalizer. Only
/// one question bears on tokens: whether a piece begins with the very first character of the text
/// (`prepend_scheme` `first` of `Metaspace`). Places never go down from left to right, so it is
/// enough to count the bytes that come from that character.
struct NormalizedText {
  /// The text, UTF-8.
  var bytes: [UInt8]
  /// How many bytes at the beginning come from the first character of the whole text.
  var firstByteCount: Int

  /// A text before the normalizer; `isFirst` if the whole text begins with it.
  init(_ bytes: [UInt8], isFirst: Bool) {
    self.bytes = bytes
    firstByteCount = isFirst && !bytes.isEmpty ? bytes.span.endOfCharacter(at: 0) : 0
  }

  /// A part of a text.
  init(_ text: NormalizedText, _ range: Range<Int>) {
    bytes = range == text.bytes.indices ? text.bytes : Array(text.bytes[range])
    firstByteCount = min(max(0, text.firstByteCount - range.lowerBound), range.count)
  }

  /// Puts a text before this one; it comes from where the first character comes from.
  mutating func prepend(_ text: [UInt8]) {
    guard !bytes.isEmpty else { return }
    bytes.insert(contentsOf: text, at: 0)
    if firstByteCount > 0 { firstByteCount += text.count }
  }

  /// Puts a text in the place of parts, in ascending order; it comes from where the part's last
  /// byte comes from.
  mutating func replace(_ parts: [Range<Int>], by text: [UInt8]) {
    guard !parts.isEmpty else { return }
    let old = bytes
    let source = old.span
    var result: [UInt8] = []
    result.reserveCapacity(old.count)
    var count = 0
    var copied = 0
    for part in parts {
      result.append(source, copied..<part.lowerBound)
      count += max(0, min(firstByteCount, part.lowerBound) - copied)
      result += text
      if part.upperBound - 1 < firstByteCount { count += text.count }
      copied = part.upperBound
    }
    result.append(source, copied..<source.count)
    count += max(0, firstByteCount - copied)
    bytes = result
    firstByteCount = count
  }

  /// Changes the text by a function that takes characters one by one.
  mutating func map(_ change: (Span<UInt8>, inout [UInt8]) -> Void) {
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count)
    change(bytes.span.extracting(0..<firstByteCount), &result)
    let count = result.count
    change(bytes.span.extracting(firstByteCount..<bytes.count), &result)
    bytes = result
    firstByteCount = count
  }
}
