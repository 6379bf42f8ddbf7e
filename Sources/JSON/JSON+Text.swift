extension JSON {
  /// The value as text.
  ///
  /// Without `indent` as serde_json writes it, and as Python's `json.dumps` with
  /// `separators=(",", ":")`; with `indent` as Python's with `indent=…`. Both with
  /// `ensure_ascii=False`, but for `isASCII`, which is Python's default. With `sortedKeys` objects
  /// are written in the order of their keys' code points (`sort_keys=True`).
  package func text(
    indent: Int? = nil, sortedKeys: Bool = false, isASCII: Bool = false
  ) -> String {
    var writer = Writer(indent: indent, sortedKeys: sortedKeys, isASCII: isASCII)
    writer.write(self, level: 0)
    return String(decoding: writer.bytes, as: UTF8.self)
  }

  /// Appends a string with its quotes and escapes, as serde_json writes it.
  package static func append(_ string: String, to bytes: inout [UInt8]) {
    bytes.append(UInt8(ascii: "\""))
    for byte in string.utf8 { appendEscaped(byte, to: &bytes) }
    bytes.append(UInt8(ascii: "\""))
  }

  private static func appendEscaped(_ byte: UInt8, to bytes: inout [UInt8]) {
    switch byte {
    case UInt8(ascii: "\""): bytes += "\\\"".utf8
    case UInt8(ascii: "\\"): bytes += "\\\\".utf8
    case 0x08: bytes += "\\b".utf8
    case 0x0C: bytes += "\\f".utf8
    case 0x0A: bytes += "\\n".utf8
    case 0x0D: bytes += "\\r".utf8
    case 0x09: bytes += "\\t".utf8
    case 0x00...0x1F: appendHex(UInt16(byte), to: &bytes)
    default: bytes.append(byte)
    }
  }

  private static func appendHex(_ unit: UInt16, to bytes: inout [UInt8]) {
    let digits = String(unit, radix: 16)
    bytes += "\\u".utf8
    bytes += repeatElement(UInt8(ascii: "0"), count: 4 - digits.utf8.count)
    bytes += digits.utf8
  }

  private struct Writer {
    let indent: Int?
    let sortedKeys: Bool
    let isASCII: Bool
    var bytes: [UInt8] = []

    mutating func write(_ value: JSON, level: Int) {
      switch value {
      case .null: bytes += "null".utf8
      case .bool(let value): bytes += (value ? "true" : "false").utf8
      case .number(let text): bytes += text.utf8
      case .string(let string): write(string)
      case .array(let elements):
        bytes.append(UInt8(ascii: "["))
        for (index, element) in elements.enumerated() {
          separate(index, level)
          write(element, level: level + 1)
        }
        if !elements.isEmpty { breakLine(level) }
        bytes.append(UInt8(ascii: "]"))
      case .object(let members):
        bytes.append(UInt8(ascii: "{"))
        let ordered =
          sortedKeys ? members.sorted { $0.key.precedesByBytes($1.key) } : members
        for (index, member) in ordered.enumerated() {
          separate(index, level)
          write(member.key)
          bytes += (indent == nil ? ":" : ": ").utf8
          write(member.value, level: level + 1)
        }
        if !ordered.isEmpty { breakLine(level) }
        bytes.append(UInt8(ascii: "}"))
      }
    }

    private mutating func write(_ string: String) {
      guard isASCII else { return JSON.append(string, to: &bytes) }
      bytes.append(UInt8(ascii: "\""))
      for unit in string.utf16 {
        if unit < 0x7F {
          JSON.appendEscaped(UInt8(unit), to: &bytes)
        } else {
          JSON.appendHex(unit, to: &bytes)
        }
      }
      bytes.append(UInt8(ascii: "\""))
    }

    private mutating func separate(_ index: Int, _ level: Int) {
      if index > 0 { bytes.append(UInt8(ascii: ",")) }
      breakLine(level + 1)
    }

    private mutating func breakLine(_ level: Int) {
      guard let indent else { return }
      bytes.append(UInt8(ascii: "\n"))
      bytes += repeatElement(UInt8(ascii: " "), count: indent * level)
    }
  }
}
