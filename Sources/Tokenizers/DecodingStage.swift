import Files

/// A step of a decoder at work: takes tokens one after the other, and gives what is certain.
///
/// Steps that make one token of all give that in fragments; those after them treat the fragments as
/// parts of one token.
struct DecodingStage {
  private let step: Decoder
  /// Whether what comes in are fragments of one token.
  private let isJoined: Bool
  private var isFirst = true
  /// What is held back: the bytes of an unfinished character, of a run of byte tokens, of a joined
  /// token, or the last token.
  private var held: [UInt8] = []
  private var hasHeld = false
  /// How many characters may still be taken off the beginning of a joined token.
  private var stripsLeft = 0

  private init(_ step: Decoder, isJoined: Bool) {
    self.step = step
    self.isJoined = isJoined
    if case .map(.strip(_, let start, _)) = step { stripsLeft = start }
  }

  /// The stages of a decoder's steps.
  static func stages(_ steps: [Decoder]) -> [DecodingStage] {
    var isJoined = false
    return steps.map { step in
      defer {
        switch step {
        case .byteLevel, .fuse: isJoined = true
        case .byteFallback, .map: break
        }
      }
      return DecodingStage(step, isJoined: isJoined)
    }
  }

  /// Takes tokens, or fragments of the joined one, and adds those that are certain to `result`.
  ///
  /// - Throws: `unsupported` where a pattern takes too many steps, or more is added than may be.
  mutating func push(
    _ tokens: TokenTexts, to result: inout TokenTexts, _ growth: inout GrowthBudget
  ) throws(PeftoolError) {
    for index in 0..<tokens.count {
      try push(tokens.bytes.span.extracting(tokens.range(index)), to: &result, &growth)
    }
    if case .byteLevel = step, !isJoined { emitWholeCharacters(to: &result) }
  }

  private mutating func push(
    _ token: Span<UInt8>, to result: inout TokenTexts, _ growth: inout GrowthBudget
  ) throws(PeftoolError) {
    switch step {
    case .fuse: result.append(token)
    case .byteLevel where !isJoined:
      if !ByteAlphabet.appendBytes(of: token, to: &held) { held.append(token, token.indices) }
    case .byteFallback where !isJoined:
      if let byte = Self.byte(token) {
        held.append(byte)
      } else {
        emitBytes(to: &result)
        result.append(token)
      }
    case .map(.strip(let scalar, _, 0)) where isJoined:
      let start = strippedCount(token, scalar)
      result.append(token.extracting(start..<token.count))
    case .map(let change) where !isJoined && !change.dependsOnLast:
      let isFirst = isFirst
      try result.append { (bytes) throws(PeftoolError) in
        try change.append(token, isFirst: isFirst, isLast: false, to: &bytes, &growth)
      }
    case .map(let change) where !isJoined:
      if hasHeld { try emitHeld(change, isFirst: false, isLast: false, to: &result, &growth) }
      held.removeAll(keepingCapacity: true)
      held.append(token, token.indices)
      hasHeld = true
    case .byteLevel, .byteFallback, .map:
      // What becomes of the token depends on all of it.
      held.append(token, token.indices)
      hasHeld = true
    }
    isFirst = false
  }

  /// Ends the tokens, and adds what was held back to `result`.
  ///
  /// - Throws: as `push`.
  mutating func finish(
    to result: inout TokenTexts, _ growth: inout GrowthBudget
  ) throws(PeftoolError) {
    switch step {
    case .byteLevel where !isJoined: Self.emitRepaired(held[...], to: &result)
    case .byteFallback where !isJoined: emitBytes(to: &result)
    case .byteLevel where hasHeld:
      var bytes: [UInt8] = []
      if !ByteAlphabet.appendBytes(of: held.span, to: &bytes) { bytes = held }
      Self.emitRepaired(bytes[...], to: &result)
    case .byteFallback where hasHeld:
      guard let byte = Self.byte(held.span) else { return result.append(held.span) }
      held = [byte]
      emitBytes(to: &result)
    case .map(let change) where hasHeld:
      try emitHeld(change, isFirst: true, isLast: true, to: &result, &growth)
    case .fuse, .byteLevel, .byteFallback, .map: break
    }
  }

  private func emitHeld(
    _ change: TokenChange, isFirst: Bool, isLast: Bool, to result: inout TokenTexts,
    _ growth: inout GrowthBudget
  ) throws(PeftoolError) {
    try result.append { (bytes) throws(PeftoolError) in
      try change.append(held.span, isFirst: isFirst, isLast: isLast, to: &bytes, &growth)
    }
  }

  /// Adds what is held back, but for a last character that more bytes may change.
  private mutating func emitWholeCharacters(to result: inout TokenTexts) {
    let end = held.span.endOfWholeCharacters
    Self.emitRepaired(held[..<end], to: &result)
    held.removeFirst(end)
  }

  /// Adds a run of bytes: as text, or if it is none, a replacement character for each byte.
  private mutating func emitBytes(to result: inout TokenTexts) {
    guard !held.isEmpty else { return }
    if Self.isText(held.span) {
      result.append(held.span)
    } else {
      for _ in held { result.append { $0.append("\u{FFFD}") } }
    }
    held.removeAll(keepingCapacity: true)
  }

  /// The byte that a token such as `<0x41>` stands for.
  private static func byte(_ token: Span<UInt8>) -> UInt8? {
    // As Rust reads numbers: a plus may stand before a digit.
    guard token.count == 6, token[0] == UInt8(ascii: "<"), token[1] == UInt8(ascii: "0"),
      token[2] == UInt8(ascii: "x"), token[3] != UInt8(ascii: "-"), token[5] == UInt8(ascii: ">")
    else { return nil }
    return UInt8(String(decoding: [token[3], token[4]], as: UTF8.self), radix: 16)
  }

  private mutating func strippedCount(_ fragment: Span<UInt8>, _ scalar: Unicode.Scalar) -> Int {
    var place = 0
    while stripsLeft > 0, place < fragment.count {
      if fragment.scalar(at: place) == scalar {
        stripsLeft -= 1
        place = fragment.endOfCharacter(at: place)
      } else {
        stripsLeft = 0
      }
    }
    return place
  }

  private static func isText(_ bytes: Span<UInt8>) -> Bool {
    do throws(UTF8.ValidationError) {
      _ = try UTF8Span(validating: bytes)
      return true
    } catch {
      return false
    }
  }

  /// Adds bytes as UTF-8, with replacement characters for what is none.
  private static func emitRepaired(_ bytes: ArraySlice<UInt8>, to result: inout TokenTexts) {
    if isText(bytes.span) {
      result.append(bytes.span)
    } else {
      result.append { $0 += String(decoding: bytes, as: UTF8.self).utf8 }
    }
  }
}

extension Span<UInt8> {
  /// Where the last character ends that more bytes cannot change; an unfinished one has at most
  /// three bytes.
  fileprivate var endOfWholeCharacters: Int {
    for length in 1...3 where length <= count {
      let start = count - length
      let byte = self[start]
      if byte & 0xC0 == 0x80 { continue }
      let needed = byte < 0xC2 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : byte < 0xF5 ? 4 : 1
      return needed > length ? start : count
    }
    return count
  }
}
