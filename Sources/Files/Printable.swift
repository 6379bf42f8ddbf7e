extension String {
  /// The string as it may reach a terminal: control characters (C0, DEL, C1) and bidirectional
  /// overrides as `\u{…}`, and no more than 200 characters of it.
  package var printable: String {
    var text = ""
    for (count, scalar) in unicodeScalars.enumerated() {
      if count == 200 { return text + "…" }
      switch scalar.value {
      case 0x00...0x1F, 0x7F...0x9F, 0x061C, 0x200E...0x200F, 0x2028...0x202E, 0x2066...0x2069,
        0xFEFF:
        text += "\\u{\(String(scalar.value, radix: 16))}"
      default:
        text.unicodeScalars.append(scalar)
      }
    }
    return text
  }
}
