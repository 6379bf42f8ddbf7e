import JSON

/// The order of names in which transformers 5.23 fills shards (`dot_natural_key` in
/// `core_model_loading.py`): by the parts between dots, numbers first and by their value.
struct ParameterOrder: Comparable {
  private let parts: [Part]

  /// A number, or a text with the number at its end.
  private struct Part: Comparable {
    let isText: Bool
    let text: String
    let number: [UInt8]?

    init(_ part: Substring) {
      let digits = Array(
        part.utf8.reversed().prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
          .reversed())
      isText = digits.count < part.utf8.count
      text = String(decoding: part.utf8.dropLast(digits.count), as: UTF8.self)
      number = digits.isEmpty ? nil : Array(digits.drop { $0 == UInt8(ascii: "0") })
    }

    static func < (a: Part, b: Part) -> Bool {
      if a.isText != b.isText { return b.isText }
      if a.text != b.text { return a.text.precedesByBytes(b.text) }
      guard let x = a.number, let y = b.number else { return a.number == nil && b.number != nil }
      return x.count == y.count ? x.lexicographicallyPrecedes(y) : x.count < y.count
    }
  }

  init(_ name: String) {
    parts = name.split(separator: ".", omittingEmptySubsequences: false).map(Part.init)
  }

  static func < (a: ParameterOrder, b: ParameterOrder) -> Bool {
    a.parts.lexicographicallyPrecedes(b.parts)
  }
}
