/// What becomes of what separates two pieces (`SplitDelimiterBehavior` of the `tokenizers` library).
enum SplitBehavior: String, Sendable, CaseIterable {
  /// It is taken out.
  case removed = "Removed"
  /// It is a piece.
  case isolated = "Isolated"
  /// It goes to the piece before it.
  case mergedWithPrevious = "MergedWithPrevious"
  /// It goes to the piece after it.
  case mergedWithNext = "MergedWithNext"
  /// All that stands together is one piece.
  case contiguous = "Contiguous"

  /// Appends the pieces that parts make, but for empty ones.
  func append(_ parts: [Cuts.Part], from start: Int, to pieces: inout [Range<Int>]) {
    func append(_ range: Range<Int>) {
      if !range.isEmpty {
        pieces.append(start + range.lowerBound..<start + range.upperBound)
      }
    }
    switch self {
    case .isolated:
      for part in parts { append(part.range) }
    case .removed:
      for part in parts where !part.isSeparator { append(part.range) }
    case .contiguous:
      Self.join(parts) { $0.isSeparator == $1 }.forEach(append)
    case .mergedWithPrevious:
      Self.join(parts) { $0.isSeparator && !$1 }.forEach(append)
    case .mergedWithNext:
      Self.joinBackwards(parts).forEach(append)
    }
  }

  /// Parts, of which some are joined to the one before; the condition is given a part and whether
  /// the part before it separates, which is false for the first.
  private static func join(
    _ parts: [Cuts.Part], if isJoined: (Cuts.Part, Bool) -> Bool
  ) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    var isAfterSeparator = false
    for part in parts {
      if isJoined(part, isAfterSeparator), let last = ranges.popLast() {
        ranges.append(last.lowerBound..<part.range.upperBound)
      } else {
        ranges.append(part.range)
      }
      isAfterSeparator = part.isSeparator
    }
    return ranges
  }

  /// Parts, of which a separator is joined to the one after it, unless that separates, too.
  private static func joinBackwards(_ parts: [Cuts.Part]) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    var isBeforeSeparator = false
    for part in parts.reversed() {
      if part.isSeparator, !isBeforeSeparator, let last = ranges.popLast() {
        ranges.append(part.range.lowerBound..<last.upperBound)
      } else {
        ranges.append(part.range)
      }
      isBeforeSeparator = part.isSeparator
    }
    return ranges.reversed()
  }
}
