/// Texts one after the other in one array: the tokens that go from one step of a decoder to the next.
struct TokenTexts {
  private(set) var bytes: [UInt8] = []
  private var ends: [Int] = []

  var count: Int { ends.count }

  /// Where in `bytes` a text is.
  func range(_ index: Int) -> Range<Int> {
    (index == 0 ? 0 : ends[index - 1])..<ends[index]
  }

  /// Adds a text.
  mutating func append(_ text: Span<UInt8>) {
    bytes.append(text, 0..<text.count)
    ends.append(bytes.count)
  }

  /// Adds the text that `write` appends to the array that it is given.
  mutating func append<Failure>(
    _ write: (inout [UInt8]) throws(Failure) -> Void
  ) throws(Failure) {
    try write(&bytes)
    ends.append(bytes.count)
  }

  mutating func removeAll() {
    bytes.removeAll(keepingCapacity: true)
    ends.removeAll(keepingCapacity: true)
  }
}
