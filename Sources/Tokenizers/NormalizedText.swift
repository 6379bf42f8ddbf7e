import Files

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
  /// What may still be added to the whole text.
  var growth: GrowthBudget

  /// A text before the normalizer; `isFirst` if the whole text begins with it.
  init(_ bytes: [UInt8], isFirst: Bool, growth: GrowthBudget) {
    self.bytes = bytes
    self.growth = growth
    firstByteCount = isFirst && !bytes.isEmpty ? bytes.span.endOfCharacter(at: 0) : 0
  }

  /// A part of a text.
  init(_ text: NormalizedText, _ range: Range<Int>, growth: GrowthBudget? = nil) {
    self = text
    self.growth = growth ?? text.growth
    keep(range)
  }

  /// Throws all but a part away.
  mutating func keep(_ range: Range<Int>) {
    if range.count < bytes.count { bytes = Array(bytes[range]) }
    firstByteCount = min(max(0, firstByteCount - range.lowerBound), range.count)
  }

  /// Puts a text before this one; it comes from where the first character comes from.
  mutating func prepend(_ text: [UInt8]) {
    guard !bytes.isEmpty else { return }
    bytes.insert(contentsOf: text, at: 0)
    if firstByteCount > 0 { firstByteCount += text.count }
  }

  /// Puts a text in the place of parts, which `find` calls its second argument with, in ascending
  /// order; it comes from where the part's last byte comes from.
  ///
  /// - Throws: what `find` throws; `unsupported` where the text becomes too long.
  mutating func replace(
    by text: [UInt8],
    _ find: (
      _ bytes: Span<UInt8>, _ replace: (Range<Int>) throws(PeftoolError) -> Void
    ) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    let old = bytes
    let source = old.span
    let limit = firstByteCount
    var result: [UInt8] = []
    var count = 0
    var copied = 0
    try find(source) { (part) throws(PeftoolError) in
      result.append(source, copied..<part.lowerBound)
      count += max(0, min(limit, part.lowerBound) - copied)
      result += text
      if part.upperBound - 1 < limit { count += text.count }
      copied = part.upperBound
      try growth.check(result.count - part.upperBound)
    }
    result.append(source, copied..<source.count)
    count += max(0, limit - copied)
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
