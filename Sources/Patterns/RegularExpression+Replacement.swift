import COniguruma
package import Files

extension RegularExpression {
  /// What takes the place of a match: text, and groups of the match.
  ///
  /// Written as for Python's `re.sub`: `\1` to `\9` are groups, `\g<0>` the whole match and `\\` a
  /// backslash.
  package struct Template: Sendable {
    fileprivate enum Part: Sendable {
      case text([UInt8])
      case group(Int)
    }

    fileprivate let parts: [Part]

    /// Reads a template.
    ///
    /// - Throws: `unsupported` where a backslash is followed by something else.
    package init(_ text: String) throws(PeftoolError) {
      var parts: [Part] = []
      var rest = text[...]
      while let backslash = rest.firstIndex(of: "\\") {
        parts.append(.text(Array(rest[..<backslash].utf8)))
        rest = rest[rest.index(after: backslash)...]
        if rest.hasPrefix("g<0>") {
          parts.append(.group(0))
          rest = rest.dropFirst(4)
        } else if let digit = rest.first, let group = digit.wholeNumberValue, digit.isASCII,
          group > 0
        {
          parts.append(.group(group))
          rest = rest.dropFirst()
        } else if rest.first == "\\" {
          parts.append(.text([UInt8(ascii: "\\")]))
          rest = rest.dropFirst()
        } else {
          throw PeftoolError(
            .unsupported,
            "'\(text.printable)' has a backslash before something else than 1 to 9, g<0> or a "
              + "backslash")
        }
      }
      self.parts = parts + [.text(Array(rest.utf8))]
    }
  }

  /// The text with every match replaced, from left to right (Python's `re.sub`).
  ///
  /// - Throws: `unsupported` where a match takes too many steps, or the template has a group that the
  ///   pattern has not; `damaged` where the result is no UTF-8.
  package func replacing(
    in text: String, with template: Template
  ) throws(PeftoolError) -> String {
    let bytes = Array(text.utf8)
    var result: [UInt8] = []
    var copied = 0
    var start = 0
    while start <= bytes.count, let groups = try search(bytes, from: start) {
      guard let whole = groups.first ?? nil else { break }
      result += bytes[copied..<whole.lowerBound]
      for part in template.parts {
        switch part {
        case .text(let text): result += text
        case .group(let number):
          guard groups.indices.contains(number) else {
            throw PeftoolError(
              .unsupported, "'\(pattern.printable)' has no group \(number)")
          }
          if let range = groups[number] { result += bytes[range] }
        }
      }
      copied = whole.upperBound
      start = whole.isEmpty ? bytes.endOfCharacter(at: whole.upperBound) : whole.upperBound
    }
    result += bytes[copied...]
    guard let replaced = String(validating: result, as: UTF8.self) else {
      throw PeftoolError(.damaged, "'\(pattern.printable)' cuts a character of a name in two")
    }
    return replaced
  }

  /// The ranges of the first match from a place on, and of its groups; nil where there is none.
  private func search(
    _ bytes: [UInt8], from place: Int
  ) throws(PeftoolError) -> [Range<Int>?]? {
    guard let region = unsafe onig_region_new() else {
      throw PeftoolError(.io, "no memory to match '\(pattern.printable)'")
    }
    defer { unsafe onig_region_free(region, 1) }
    let status = try unsafe matching { parameters in
      // The pointers live through the call; onig_search keeps none of them but fills the region.
      unsafe bytes.withUnsafeBufferPointer { text in
        let start = text.baseAddress
        let end = unsafe start.map { unsafe $0 + text.count }
        return unsafe onig_search_with_param(
          compiled, start, end, start.map { unsafe $0 + place }, end, region,
          OnigOptionType(ONIG_OPTION_NONE), parameters)
      }
    }
    guard status >= 0 else { return nil }
    // The region has as many places as it says.
    return unsafe (0..<Int(region.pointee.num_regs)).map { group in
      let (from, to) = unsafe (region.pointee.beg[group], region.pointee.end[group])
      return from < 0 ? nil : Int(from)..<Int(to)
    }
  }
}

extension [UInt8] {
  /// Where the character of UTF-8 that begins at a place ends.
  fileprivate func endOfCharacter(at place: Int) -> Int {
    var end = place + 1
    while end < count, self[end] & 0xC0 == 0x80 { end += 1 }
    return end
  }
}
