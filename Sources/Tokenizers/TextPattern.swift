import Files
import Patterns

/// What `Split` and `Replace` look for: a text, or a regular expression of Oniguruma.
enum TextPattern: Sendable {
  case literal([UInt8])
  case expression(RegularExpression)

  /// The most bytes of a text: a search compares at most so many at each place.
  static let maximumLiteralByteCount = 1024

  init(literal text: String) throws(PeftoolError) {
    guard text.utf8.count <= Self.maximumLiteralByteCount else {
      throw PeftoolError(
        .unsupported,
        "\(text.utf8.count) bytes to look for, expected at most \(Self.maximumLiteralByteCount)")
    }
    // A text without characters is found between any two, as an expression without any is.
    self =
      text.isEmpty
      ? .expression(try RegularExpression("", syntax: .oniguruma))
      : .literal(Array(text.utf8))
  }

  /// - Throws: `damaged` where it is no regular expression, `unsupported` where the time that it takes
  ///   at one place of a text has no bound.
  init(expression: String) throws(PeftoolError) {
    self = .expression(try RegularExpression(expression, syntax: .oniguruma))
    if let part = PatternShape.unboundedPart(of: expression) {
      throw PeftoolError(
        .unsupported,
        "'\(expression.printable)' has \(part), of which the time cannot be bounded")
    }
  }

  /// Calls `body` with each match, from left to right; none overlaps another.
  ///
  /// An empty match where the last one ended does not count (`find_iter` of rust-onig).
  /// - Throws: `unsupported` where the searches take too many steps; what `body` throws.
  func forEachMatch(
    in text: Span<UInt8>, _ search: inout PatternSearch,
    _ body: (Range<Int>) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    switch self {
    case .literal(let literal): try Self.forEachMatch(of: literal, in: text, body)
    case .expression(let expression):
      var place = 0
      var lastEnd = -1
      while place <= text.count,
        let match = try search.firstMatch(of: expression, in: text, from: place)
      {
        if match.isEmpty, match.upperBound == lastEnd {
          place = place < text.count ? text.endOfCharacter(at: place) : place + 1
        } else {
          place = match.upperBound
          lastEnd = place
          try body(match)
        }
      }
    }
  }

  /// As `forEachMatch`, for a short text of its own that may take so many steps.
  ///
  /// - Throws: `unsupported` where the searches take too many steps.
  func forEachMatch(
    in text: Span<UInt8>, spareStepCount: Int,
    _ body: (Range<Int>) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    if case .literal(let literal) = self {
      return try Self.forEachMatch(of: literal, in: text, body)
    }
    var search = try PatternSearch(textByteCount: text.count, spareStepCount: spareStepCount)
    try forEachMatch(in: text, &search, body)
  }

  private static func forEachMatch(
    of literal: [UInt8], in text: Span<UInt8>,
    _ body: (Range<Int>) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    var place = 0
    while let start = text.firstPlace(of: literal.span, from: place) {
      place = start + literal.count
      try body(start..<place)
    }
  }
}
