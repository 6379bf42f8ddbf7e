import Files

/// A text in pieces: ranges in ascending order, none of them empty, with gaps where something was
/// taken out.
struct Pieces {
  private(set) var text: NormalizedText
  private(set) var ranges: [Range<Int>]

  /// One piece that is all of the text.
  init(_ text: NormalizedText) {
    self.text = text
    ranges = text.bytes.isEmpty ? [] : [text.bytes.indices]
  }

  /// Cuts every piece: `cut` finds what separates, or with `isInverted` what does not.
  mutating func split<Failure>(
    _ behavior: SplitBehavior, isInverted: Bool = false,
    _ cut: (Span<UInt8>, inout Cuts) throws(Failure) -> Void
  ) throws(Failure) {
    var result: [Range<Int>] = []
    result.reserveCapacity(ranges.count)
    var cuts = Cuts(isInverted: isInverted)
    for range in ranges {
      cuts.begin(byteCount: range.count)
      try cut(text.bytes.span.extracting(range), &cuts)
      cuts.finish()
      behavior.append(cuts.parts, from: range.lowerBound, to: &result)
    }
    ranges = result
  }

  /// Makes another text of every piece; `change` is given the piece, and whether it begins with the
  /// first character of the whole text.
  ///
  /// - Throws: what `change` throws; `unsupported` where the text becomes too long.
  mutating func map(
    _ change: (inout NormalizedText, _ isFirst: Bool) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    var result: [UInt8] = []
    result.reserveCapacity(text.bytes.count)
    var places: [Range<Int>] = []
    places.reserveCapacity(ranges.count)
    var firstByteCount = 0
    for range in ranges {
      var piece = NormalizedText(text, range)
      try change(&piece, range.lowerBound < text.firstByteCount)
      let start = result.count
      result += piece.bytes
      firstByteCount += piece.firstByteCount
      if result.count > start { places.append(start..<result.count) }
    }
    try text.growth.spend(result.count - text.bytes.count)
    text.bytes = result
    text.firstByteCount = firstByteCount
    ranges = places
  }
}

/// A piece cut into parts one after the other, each of which separates or does not.
struct Cuts {
  /// A part that separates, or not.
  struct Part {
    var range: Range<Int>
    let isSeparator: Bool
  }

  private(set) var parts: [Part] = []
  private let isInverted: Bool
  private var end = 0
  private var byteCount = 0

  init(isInverted: Bool) {
    self.isInverted = isInverted
  }

  mutating func begin(byteCount: Int) {
    parts.removeAll(keepingCapacity: true)
    end = 0
    self.byteCount = byteCount
  }

  /// Adds what was found, after what was found before.
  mutating func add(_ range: Range<Int>) {
    if range.lowerBound > end {
      parts.append(Part(range: end..<range.lowerBound, isSeparator: isInverted))
    }
    parts.append(Part(range: range, isSeparator: !isInverted))
    end = range.upperBound
  }

  mutating func finish() {
    if byteCount > end { parts.append(Part(range: end..<byteCount, isSeparator: isInverted)) }
  }
}
