import CUTF8Proc
import Files

/// One of Unicode's normalization forms, as the `tokenizers` library makes them.
///
/// By utf8proc, but with the data of Unicode 9: the library's crate
/// (unicode-normalization-alignments 0.1.12) is of that age, and leaves younger characters as they
/// are.
struct NormalizationForm: Sendable {
  /// NFC and NFKC.
  let composes: Bool
  /// NFKC and NFKD.
  let isCompatible: Bool

  /// Characters of later versions neither change nor move others.
  private static let lastVersion = (major: 9, minor: 0)

  /// Changes a text.
  ///
  /// - Throws: `io` where memory is out.
  func normalize(_ text: inout NormalizedText) throws(PeftoolError) {
    guard let start = firstPlace(in: text.bytes.span) else { return }
    var result: [UInt8] = []
    result.reserveCapacity(text.bytes.count)
    let bytes = text.bytes
    let source = bytes.span
    result.append(source, 0..<start)
    var place = start
    while place < source.count {
      // ASCII changes nothing but by marks after it, and is changed by nothing before it.
      var end = place
      while end < source.count, source[end] < 0x80 { end += 1 }
      let first = max(place, end - 1)
      result.append(source, place..<(end == source.count ? end : first))
      guard end < source.count else { break }
      place = end
      var isChanged = !isLenient
      while place < source.count, source[place] >= 0x80 {
        if source[place] >= Self.firstMark { isChanged = true }
        place += 1
      }
      if isChanged {
        try append(source, first..<place, to: &result)
      } else {
        result.append(source, first..<place)
      }
    }
    let firstByteCount = try firstByteCount(text, in: result.span)
    text.bytes = result
    text.firstByteCount = firstByteCount
  }

  /// The first byte of U+0300: characters below it are their own NFC, and the second half of no
  /// other one.
  private static let firstMark: UInt8 = 0xCC

  /// Whether only what comes with a character from U+0300 on may change.
  private var isLenient: Bool { composes && !isCompatible }

  /// The place from which on a text may change; nil where there is none.
  private func firstPlace(in text: Span<UInt8>) -> Int? {
    let limit = isLenient ? Self.firstMark : 0x80
    guard let place = text.indices.first(where: { text[$0] >= limit }) else { return nil }
    return place == 0 ? 0 : text.scalar(before: place).start
  }

  /// How many bytes come from the first character: as many characters as that one becomes alone.
  private func firstByteCount(
    _ text: NormalizedText, in result: Span<UInt8>
  ) throws(PeftoolError) -> Int {
    guard text.firstByteCount > 0 else { return 0 }
    var alone: [UInt8] = []
    try append(text.bytes.span, 0..<text.firstByteCount, to: &alone)
    var count = 0
    var place = 0
    while place < alone.count, count < result.count {
      place = alone.span.endOfCharacter(at: place)
      count = result.endOfCharacter(at: count)
    }
    return count
  }

  /// Appends the form of a part that nothing around it changes.
  private func append(
    _ text: Span<UInt8>, _ range: Range<Int>, to result: inout [UInt8]
  ) throws(PeftoolError) {
    var start = range.lowerBound
    var place = start
    while place < range.upperBound {
      let end = text.endOfCharacter(at: place)
      if end - place > 1, text.scalar(at: place).isYounger(than: Self.lastVersion) {
        try appendOldCharacters(text, start..<place, to: &result)
        result.append(text, place..<end)
        start = end
      }
      place = end
    }
    try appendOldCharacters(text, start..<range.upperBound, to: &result)
  }

  private func appendOldCharacters(
    _ text: Span<UInt8>, _ range: Range<Int>, to result: inout [UInt8]
  ) throws(PeftoolError) {
    guard !range.isEmpty else { return }
    var options = UTF8PROC_STABLE.rawValue
    options |= composes ? UTF8PROC_COMPOSE.rawValue : UTF8PROC_DECOMPOSE.rawValue
    if isCompatible { options |= UTF8PROC_COMPAT.rawValue }
    let part = text.extracting(range)
    let flags = utf8proc_option_t(options)
    // utf8proc reads the part's bytes at most, writes at most `room` code points, and tells how
    // many there are where that is not enough; no character becomes more than 18 of them.
    var points = [Int32](repeating: 0, count: part.count + 18)
    var count = 0
    while true {
      let room = points.count
      count = unsafe part.withUnsafeBufferPointer { bytes in
        unsafe points.withUnsafeMutableBufferPointer { points in
          unsafe utf8proc_decompose(
            bytes.baseAddress, bytes.count, points.baseAddress, room, flags)
        }
      }
      guard count > room else { break }
      points = [Int32](repeating: 0, count: count)
    }
    guard count >= 0 else { throw Self.failure(count) }
    // The code points stay where they are, and get no more.
    count = unsafe points.withUnsafeMutableBufferPointer { points in
      unsafe utf8proc_normalize_utf32(points.baseAddress, count, flags)
    }
    guard count >= 0 else { throw Self.failure(count) }
    for point in points[..<count] {
      result.append(Unicode.Scalar(UInt32(point)) ?? "\u{FFFD}")
    }
  }

  private static func failure(_ code: Int) -> PeftoolError {
    // utf8proc_errmsg gives a constant string.
    PeftoolError(.io, "utf8proc: \(unsafe String(cString: utf8proc_errmsg(code)))")
  }
}

extension Unicode.Scalar {
  /// Whether the character has come with a later version of Unicode, or with none yet.
  func isYounger(than version: (major: Int, minor: Int)) -> Bool {
    guard let age = properties.age else { return true }
    return (age.major, age.minor) > (version.major, version.minor)
  }

  /// Whether the character is a mark, as `StripAccents` sees it: with the data of Unicode 9.
  var isCombiningMark: Bool {
    switch properties.generalCategory {
    // A Sharada sign was punctuation until Unicode 11.
    case .nonspacingMark, .spacingMark, .enclosingMark:
      !isYounger(than: (9, 0)) && value != 0x111C9
    // Two Vedic signs, which are letters since Unicode 12.
    case .otherLetter: value == 0x1CF2 || value == 0x1CF3
    default: false
    }
  }
}
