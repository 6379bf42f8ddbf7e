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
    let flags = utf8proc_option_t(options)
    var points = try Self.decomposed(text.extracting(range), flags)
    Self.orderMarks(&points)
    let length = points.count
    // The code points stay where they are, and get no more.
    let count = unsafe points.withUnsafeMutableBufferPointer { points in
      unsafe utf8proc_normalize_utf32(points.baseAddress, length, flags)
    }
    guard count >= 0 else { throw Self.failure(count) }
    for point in points[..<count] {
      result.append(Unicode.Scalar(UInt32(point)) ?? "\u{FFFD}")
    }
  }

  /// No character becomes more code points: U+FDFA becomes 18.
  private static let maximumDecompositionCount = 18

  /// The code points that characters become, marks in the order in which they come.
  ///
  /// `utf8proc_decompose` would order them, too, but by changing neighbours: a run of many marks
  /// takes it a time that grows with the square.
  private static func decomposed(
    _ text: Span<UInt8>, _ flags: utf8proc_option_t
  ) throws(PeftoolError) -> [Int32] {
    var points: [Int32] = []
    points.reserveCapacity(text.count)
    var own = [Int32](repeating: 0, count: maximumDecompositionCount)
    var boundary: CInt = 0
    var place = 0
    while place < text.count {
      let point = Int32(bitPattern: text.scalar(at: place).value)
      let room = own.count
      // It writes no more than `room` code points, and keeps no pointer.
      let count = unsafe own.withUnsafeMutableBufferPointer { own in
        unsafe utf8proc_decompose_char(point, own.baseAddress, room, flags, &boundary)
      }
      guard count >= 0 else { throw failure(count) }
      precondition(count <= room, "a character of more code points than any has")
      points += own[..<count]
      place = text.endOfCharacter(at: place)
    }
    return points
  }

  /// Puts each run of marks into the order of their combining classes; marks of one class stay in
  /// theirs (Unicode's Canonical Ordering Algorithm).
  private static func orderMarks(_ points: inout [Int32]) {
    let classes = points.map { point in
      // The table is a constant, and has an entry for every number.
      Int(unsafe utf8proc_get_property(point).pointee.combining_class)
    }
    var start = 0
    while start < points.count {
      var end = start
      var isOrdered = true
      while end < points.count, classes[end] > 0 {
        if end > start, classes[end] < classes[end - 1] { isOrdered = false }
        end += 1
      }
      if !isOrdered {
        let order = (start..<end).sorted { (classes[$0], $0) < (classes[$1], $1) }
        points.replaceSubrange(start..<end, with: order.map { points[$0] })
      }
      start = end + 1
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
