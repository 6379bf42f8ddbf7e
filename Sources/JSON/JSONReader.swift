package import Files

/// Reads JSON text a token at a time, as strictly as RFC 8259 is written.
///
/// What lenient readers take is refused: comments, trailing commas, single quotes, NaN, a byte
/// order mark, raw control characters, lone surrogates, numbers such as `01`, `+1`, `.5` or `1.`,
/// and bytes after the value. A number that no double can hold (`1e999`) is refused, too. The time
/// is linear, nothing recurses, and no memory is taken but for the strings that the caller asks
/// for. Offsets in errors count from `baseOffset`.
package struct JSONReader {
  /// What a value begins as.
  package enum Kind: String {
    case object = "an object"
    case array = "an array"
    case string = "a string"
    case number = "a number"
    case bool = "a boolean"
    case null
  }

  let bytes: [UInt8]
  var position: Int
  let baseOffset: Int
  let maximumDepth: Int
  private var depth = 0
  private var valuesLeft: Int

  /// A reader over text that is UTF-8 throughout.
  ///
  /// - Throws: `damaged` where it is not, with the offset of the first bad byte.
  package init(
    _ bytes: [UInt8], baseOffset: Int = 0, maximumDepth: Int, maximumValueCount: Int = .max
  ) throws(PeftoolError) {
    self.bytes = bytes
    self.baseOffset = baseOffset
    self.maximumDepth = maximumDepth
    valuesLeft = maximumValueCount
    position = 0
    try bytes.checkUTF8(baseOffset: baseOffset)
  }

  /// The offset of the next token.
  package var offset: Int {
    mutating get {
      skipSpace()
      return baseOffset + position
    }
  }

  /// What the next value begins as; the value itself is left for one of the `read…` or for `skip`.
  ///
  /// - Throws: `damaged` where no value begins here.
  package mutating func nextKind() throws(PeftoolError) -> Kind {
    skipSpace()
    guard let byte else { throw unexpected("a value") }
    return switch byte {
    case UInt8(ascii: "{"): .object
    case UInt8(ascii: "["): .array
    case UInt8(ascii: "\""): .string
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): .number
    case UInt8(ascii: "t"), UInt8(ascii: "f"): .bool
    case UInt8(ascii: "n"): .null
    default: throw unexpected("a value")
    }
  }

  /// Reads an object: `member` is called after each key and must read or skip the value.
  package mutating func readObject(
    _ member: (_ reader: inout JSONReader, _ key: String, _ keyOffset: Int) throws(PeftoolError) ->
      Void
  ) throws(PeftoolError) {
    try open(.object)
    if !close(UInt8(ascii: "}")) {
      repeat {
        let keyOffset = offset
        let key = try string()
        try punctuation(UInt8(ascii: ":"))
        try member(&self, key, keyOffset)
      } while try separator(before: UInt8(ascii: "}"))
    }
    depth -= 1
  }

  /// Reads an array: `element` is called once for each and must read or skip it.
  package mutating func readArray(
    _ element: (_ reader: inout JSONReader) throws(PeftoolError) -> Void
  ) throws(PeftoolError) {
    try open(.array)
    if !close(UInt8(ascii: "]")) {
      repeat {
        try element(&self)
      } while try separator(before: UInt8(ascii: "]"))
    }
    depth -= 1
  }

  /// Reads a string value.
  package mutating func readString() throws(PeftoolError) -> String {
    try begin(.string)
    return try string()
  }

  /// Reads a number and gives its text as it stands.
  package mutating func readNumber() throws(PeftoolError) -> String {
    try begin(.number)
    return String(decoding: bytes[try number()], as: UTF8.self)
  }

  /// Reads `null`.
  package mutating func readNull() throws(PeftoolError) {
    try begin(.null)
    try literal("null")
  }

  /// Goes past one value of any kind and depth, checking it as strictly as if it were read.
  ///
  /// With `isStrict`, which is for text that json-c reads next, two equal keys in one object are
  /// refused (json-c keeps the last), and so is U+0000 in a key (json-c cuts the key there).
  package mutating func skip(isStrict: Bool = false) throws(PeftoolError) {
    /// The keys of each open object; nil stands for an array.
    var open: [Set<ExactName>?] = []
    while true {
      let kind = try nextKind()
      try begin(kind)
      switch kind {
      case .object, .array:
        position += 1
        try deepen()
        let isObject = kind == .object
        if !close(isObject ? UInt8(ascii: "}") : UInt8(ascii: "]")) {
          open.append(isObject ? [] : nil)
          if isObject { try skipKey(isStrict, among: &open) }
          continue
        }
        depth -= 1
      case .string: _ = try stringToken()
      case .number: _ = try number()
      case .bool: try literal(byte == UInt8(ascii: "t") ? "true" : "false")
      case .null: try literal("null")
      }
      // A value has ended here, and with it perhaps the containers around it.
      while let keys = open.last {
        if try separator(before: keys == nil ? UInt8(ascii: "]") : UInt8(ascii: "}")) {
          if keys != nil { try skipKey(isStrict, among: &open) }
          break
        }
        open.removeLast()
        depth -= 1
      }
      if open.isEmpty { return }
    }
  }

  /// Ends the reading: only white space may follow.
  package mutating func finish() throws(PeftoolError) {
    skipSpace()
    if byte != nil { throw unexpected("the end of the text") }
  }

  private mutating func skipKey(
    _ isStrict: Bool, among open: inout [Set<ExactName>?]
  ) throws(PeftoolError) {
    let keyOffset = offset
    if isStrict {
      let key = try string()
      guard !key.utf8.contains(0) else {
        throw PeftoolError(.damaged, "a key with U+0000 in it", offset: keyOffset)
      }
      guard open[open.count - 1]?.insert(ExactName(key)).inserted == true else {
        throw PeftoolError(.damaged, "key \"\(key.printable)\" stands twice", offset: keyOffset)
      }
    } else {
      _ = try stringToken()
    }
    try punctuation(UInt8(ascii: ":"))
  }
}

// MARK: - Tokens

extension JSONReader {
  var byte: UInt8? { position < bytes.count ? bytes[position] : nil }

  mutating func skipSpace() {
    while position < bytes.count {
      switch bytes[position] {
      case 0x20, 0x09, 0x0A, 0x0D: position += 1
      default: return
      }
    }
  }

  /// The error for the byte that stands here.
  func unexpected(_ expected: String) -> PeftoolError {
    let found =
      switch byte {
      case nil: "the end of the text"
      case let byte? where (0x21...0x7E).contains(byte): "'\(UnicodeScalar(byte))'"
      case let byte?: "byte 0x" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
      }
    return PeftoolError(
      .damaged, "found \(found), expected \(expected)", offset: baseOffset + position)
  }

  private mutating func begin(_ kind: Kind) throws(PeftoolError) {
    let found = try nextKind()
    guard found == kind else {
      throw PeftoolError(
        .damaged, "found \(found.rawValue), expected \(kind.rawValue)",
        offset: baseOffset + position)
    }
    guard valuesLeft > 0 else {
      throw PeftoolError(
        .unsupported, "has more JSON values than peftool takes", offset: baseOffset + position)
    }
    valuesLeft -= 1
  }

  private mutating func open(_ kind: Kind) throws(PeftoolError) {
    try begin(kind)
    position += 1
    try deepen()
  }

  private mutating func deepen() throws(PeftoolError) {
    guard depth < maximumDepth else {
      throw PeftoolError(
        .damaged, "is nested deeper than \(maximumDepth) levels",
        offset: baseOffset + position - 1)
    }
    depth += 1
  }

  /// Goes past a closing bracket, if one is next.
  private mutating func close(_ bracket: UInt8) -> Bool {
    skipSpace()
    guard byte == bracket else { return false }
    position += 1
    return true
  }

  private mutating func separator(before bracket: UInt8) throws(PeftoolError) -> Bool {
    if close(bracket) { return false }
    guard byte == UInt8(ascii: ",") else {
      throw unexpected("',' or '\(UnicodeScalar(bracket))'")
    }
    position += 1
    return true
  }

  private mutating func punctuation(_ mark: UInt8) throws(PeftoolError) {
    skipSpace()
    guard byte == mark else { throw unexpected("'\(UnicodeScalar(mark))'") }
    position += 1
  }

  private mutating func literal(_ text: String) throws(PeftoolError) {
    for expected in text.utf8 {
      guard byte == expected else { throw unexpected("'\(text)'") }
      position += 1
    }
  }
}
