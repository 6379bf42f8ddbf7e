// What Jinja templates do with strings, as Python does it: by code points, never by grapheme
// clusters, in which a letter and a combining newline could be one.

extension String {
  /// Without white space at both ends: Python's `str.strip()`, and Jinja's `trim`.
  var pythonStripped: String {
    let scalars = unicodeScalars
    guard let first = scalars.firstIndex(where: { !$0.isPythonSpace }),
      let last = scalars.lastIndex(where: { !$0.isPythonSpace })
    else { return "" }
    return String(scalars[first...last])
  }

  /// Without white space at its end: Python's `str.rstrip()`.
  package var withoutTrailingPythonSpace: String {
    guard let last = unicodeScalars.lastIndex(where: { !$0.isPythonSpace }) else { return "" }
    return String(unicodeScalars[...last])
  }

  /// Without newlines at its beginning: `lstrip('\n')`.
  var withoutLeadingNewlines: String {
    String(Substring(unicodeScalars.drop { $0 == "\n" }))
  }

  /// Without newlines at its end: `rstrip('\n')`.
  var withoutTrailingNewlines: String {
    guard let last = unicodeScalars.lastIndex(where: { $0 != "\n" }) else { return "" }
    return String(unicodeScalars[...last])
  }

  /// What stands before the first `mark`, the whole where there is none: `split(mark)[0]`.
  func before(firstOf mark: String) -> String {
    occurrences(of: mark).first.map { String(Substring(utf8[..<$0.lowerBound])) } ?? self
  }

  /// What stands behind the last `mark`, the whole where there is none: `split(mark)[-1]`.
  func after(lastOf mark: String) -> String {
    occurrences(of: mark).last.map { String(Substring(utf8[$0.upperBound...])) } ?? self
  }

  /// Whether it begins so, byte for byte.
  func begins(with mark: String) -> Bool { utf8.starts(with: mark.utf8) }

  /// Whether it ends so, byte for byte.
  func ends(with mark: String) -> Bool { utf8.reversed().starts(with: mark.utf8.reversed()) }

  /// Where a mark stands, from the front and without overlaps.
  ///
  /// The mark begins with a byte that it has no second time, so that a look at the bytes in order
  /// finds all.
  func occurrences(of mark: String) -> [Range<String.Index>] {
    precondition(mark.utf8.count { $0 == mark.utf8.first } == 1, "a mark with one first byte")
    var found: [Range<String.Index>] = []
    var place = utf8.startIndex
    while let start = utf8[place...].firstIndex(of: mark.utf8.first ?? 0) {
      place = utf8.index(after: start)
      guard utf8[start...].starts(with: mark.utf8) else { continue }
      place = utf8.index(start, offsetBy: mark.utf8.count)
      found.append(start..<place)
    }
    return found
  }
}

extension Unicode.Scalar {
  /// Whether Python's `str.isspace()` takes it for white space: bidirectional class WS, B or S, or
  /// category Zs, as CPython's `_PyUnicode_IsWhitespace` lists them.
  fileprivate var isPythonSpace: Bool {
    switch value {
    case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F,
      0x205F, 0x3000:
      true
    default: false
    }
  }
}
