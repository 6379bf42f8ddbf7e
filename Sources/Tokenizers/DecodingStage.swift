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

  /// Takes a token, or a fragment of the joined one, and calls `emit` with each that is certain.
  ///
  /// - Throws: `unsupported` where a pattern takes too many steps.
  mutating func push(
    _ token: [UInt8], _ emit: ([UInt8]) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    switch step {
    case .fuse: try emit(token)
    case .byteLevel where !isJoined:
      if !ByteAlphabet.appendBytes(of: token.span, to: &held) { held += token }
      let end = held.span.endOfWholeCharacters
      try emit(Self.repaired(held[..<end]))
      held.removeFirst(end)
    case .byteFallback where !isJoined:
      if let byte = Self.byte(token) {
        held.append(byte)
      } else {
        try emitBytes(emit)
        try emit(token)
      }
    case .map(.strip(let scalar, _, 0)) where isJoined:
      try emit(stripped(token, scalar))
    case .map(let change) where !isJoined && !change.dependsOnLast:
      try emit(change.changed(token, isFirst: isFirst, isLast: false))
    case .map(let change) where !isJoined:
      if hasHeld { try emit(change.changed(held, isFirst: false, isLast: false)) }
      (held, hasHeld) = (token, true)
    case .byteLevel, .byteFallback, .map:
      // What becomes of the token depends on all of it.
      held += token
      hasHeld = true
    }
    isFirst = false
  }

  /// Ends the tokens, and calls `emit` with what was held back.
  ///
  /// - Throws: as `push`.
  mutating func finish(
    _ emit: ([UInt8]) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    switch step {
    case .byteLevel where !isJoined: try emit(Self.repaired(held[...]))
    case .byteFallback where !isJoined: try emitBytes(emit)
    case .byteLevel where hasHeld:
      var bytes: [UInt8] = []
      if !ByteAlphabet.appendBytes(of: held.span, to: &bytes) { bytes = held }
      try emit(Self.repaired(bytes[...]))
    case .byteFallback where hasHeld:
      guard let byte = Self.byte(held) else { return try emit(held) }
      held = [byte]
      try emitBytes(emit)
    case .map(let change) where hasHeld:
      try emit(change.changed(held, isFirst: true, isLast: true))
    case .fuse, .byteLevel, .byteFallback, .map: break
    }
  }

  /// Emits a run of bytes: as text, or if it is none, a replacement character for each byte.
  private mutating func emitBytes(
    _ emit: ([UInt8]) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    guard !held.isEmpty else { return }
    if String(validating: held, as: UTF8.self) != nil {
      try emit(held)
    } else {
      for _ in held { try emit(Array("\u{FFFD}".utf8)) }
    }
    held.removeAll()
  }

  /// The byte that a token such as `<0x41>` stands for.
  private static func byte(_ token: [UInt8]) -> UInt8? {
    // As Rust reads numbers: a plus may stand before a digit.
    guard token.count == 6, token.starts(with: "<0x".utf8), token[5] == UInt8(ascii: ">"),
      token[3] != UInt8(ascii: "-")
    else { return nil }
    return UInt8(String(decoding: token[3..<5], as: UTF8.self), radix: 16)
  }

  private mutating func stripped(_ fragment: [UInt8], _ scalar: Unicode.Scalar) -> [UInt8] {
    var place = 0
    while stripsLeft > 0, place < fragment.count {
      if fragment.span.scalar(at: place) == scalar {
        stripsLeft -= 1
        place = fragment.span.endOfCharacter(at: place)
      } else {
        stripsLeft = 0
      }
    }
    return place == 0 ? fragment : Array(fragment[place...])
  }

  /// Bytes as UTF-8, with replacement characters for what is none.
  private static func repaired(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
    Array(String(decoding: bytes, as: UTF8.self).utf8)
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
