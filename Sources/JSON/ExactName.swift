/// A string that equals another only byte for byte.
///
/// Swift's `String` takes `é` and `e` + U+0301 for equal; the formats that peftool reads do not,
/// and two tensors may have just these two names. So names are looked up by their UTF-8.
package struct ExactName: Hashable, Sendable {
  /// The name as a string.
  package let string: String

  package init(_ string: String) {
    self.string = string
  }

  package static func == (a: ExactName, b: ExactName) -> Bool {
    a.string.isExactly(b.string)
  }

  package func hash(into hasher: inout Hasher) {
    var copy = string
    // The buffer is read inside the closure only.
    copy.withUTF8 { unsafe hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
  }
}

extension String {
  /// Whether two strings have the same UTF-8; `==` takes canonically equal ones for the same.
  package func isExactly(_ other: String) -> Bool {
    utf8.count == other.utf8.count && utf8.elementsEqual(other.utf8)
  }

  /// Whether a string sorts before another by UTF-8.
  ///
  /// This is the order of code points, that of Rust's `str` and Python's `sorted`. Swift's `<`
  /// sorts by the normalised form.
  package func precedesByBytes(_ other: String) -> Bool {
    utf8.lexicographicallyPrecedes(other.utf8)
  }
}
