/// The kinds of characters that pre-tokenizers and added tokens cut at, as the libraries behind
/// `tokenizers` 0.23 know them.
extension Unicode.Scalar {
  /// Rust's `char::is_numeric`: numbers of any kind.
  var isNumeric: Bool {
    if isASCII { return ("0"..."9").contains(self) }
    switch properties.generalCategory {
    case .decimalNumber, .letterNumber, .otherNumber: return true
    default: return false
    }
  }

  /// Punctuation, and what ASCII has beside it, by the data of Unicode 8 (the crate
  /// unicode_categories 0.1.1).
  var isPunctuation: Bool {
    if isASCII {
      return switch value {
      case 0x21...0x2F, 0x3A...0x40, 0x5B...0x60, 0x7B...0x7E: true
      default: false
      }
    }
    switch properties.generalCategory {
    case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation,
      .initialPunctuation, .finalPunctuation, .otherPunctuation:
      return !isYounger(than: (8, 0))
    // A Canadian syllabic sign and a Sharada mark, which later versions moved elsewhere.
    default: return value == 0x166D || value == 0x111C9
    }
  }

  /// `\w` of Rust's regex: letters, marks, decimal digits, connectors and joiners, by the data of
  /// Unicode 16.
  var isWordCharacter: Bool {
    if isASCII {
      return switch value {
      case 0x30...0x39, 0x41...0x5A, 0x5F, 0x61...0x7A: true
      default: false
      }
    }
    guard !isYounger(than: (16, 0)) else { return false }
    switch properties.generalCategory {
    case .nonspacingMark, .spacingMark, .enclosingMark, .decimalNumber, .connectorPunctuation:
      return true
    default: return properties.isAlphabetic || properties.isJoinControl
    }
  }
}

extension Cuts {
  /// Adds each character of a kind.
  mutating func addEach(in text: Span<UInt8>, _ isOfKind: (Unicode.Scalar) -> Bool) {
    var place = 0
    while place < text.count {
      let end = text.endOfCharacter(at: place)
      if isOfKind(text.scalar(at: place)) { add(place..<end) }
      place = end
    }
  }

  /// Adds the matches of `\w+|[^\w\s]+`.
  mutating func addWords(in text: Span<UInt8>) {
    var start = 0
    // Nil for white space.
    var isWord: Bool?
    var place = 0
    while place < text.count {
      let scalar = text.scalar(at: place)
      let kind: Bool? =
        scalar.isWordCharacter ? true : scalar.properties.isWhitespace ? nil : false
      if kind != isWord {
        if isWord != nil { add(start..<place) }
        (start, isWord) = (place, kind)
      }
      place = text.endOfCharacter(at: place)
    }
    if isWord != nil { add(start..<place) }
  }
}
