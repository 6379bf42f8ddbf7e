/// The fields of one record of comma-separated values, byte by byte.
struct CSVFields {
  /// Where in a field the next byte stands.
  private enum State {
    case start
    case bare
    case quoted
    /// Behind a quote in quotes: the first of two, or the closing one.
    case quote
    /// Behind a closing quote and a carriage return.
    case carriageReturn
    case end
  }

  /// The fields that have ended, without their quotes.
  private(set) var fields: [[UInt8]] = []
  private var field: [UInt8] = []
  private var state = State.start
  /// Whether there is nothing in the line.
  private(set) var isBlank = false

  /// Whether the record's line has ended.
  var isAtEnd: Bool { state == .end }

  private static let (quote, comma) = (UInt8(ascii: "\""), UInt8(ascii: ","))
  private static let (newline, carriageReturn) = (UInt8(ascii: "\n"), UInt8(ascii: "\r"))

  /// Reads a byte; gives what is wrong with it, if anything is.
  mutating func take(_ byte: UInt8) -> String? {
    switch (state, byte) {
    case (.quoted, Self.quote): state = .quote
    case (.quoted, _): field.append(byte)
    case (.quote, Self.quote):
      field.append(byte)
      state = .quoted
    case (.start, Self.quote): state = .quoted
    case (_, Self.newline): endRecord()
    case (.quote, Self.carriageReturn): state = .carriageReturn
    case (.carriageReturn, _), (.quote, 0..<Self.comma), (.quote, (Self.comma + 1)...):
      return "text behind a closing quote, expected a comma or the line's end"
    case (_, Self.comma):
      fields.append(field)
      field = []
      state = .start
    case (_, Self.quote):
      return "a quote in a field without quotes around it, expected the field in quotes and this "
        + "one twice"
    default:
      field.append(byte)
      state = .bare
    }
    return nil
  }

  /// Ends the record where the input ends; gives what is wrong with that, if anything is.
  mutating func finish() -> String? {
    if state == .quoted { return "a quote that is never closed" }
    if state != .end { endRecord() }
    return nil
  }

  private mutating func endRecord() {
    if state == .bare, field.last == Self.carriageReturn { field.removeLast() }
    isBlank = fields.isEmpty && field.isEmpty && (state == .start || state == .bare)
    fields.append(field)
    state = .end
  }
}
