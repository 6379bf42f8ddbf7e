/// Texts that are looked for all at once: at each place the longest, from left to right
/// (leftmost-longest, as in the `tokenizers` library).
///
/// A tree of bytes, whose branches one table holds: a step takes the same time however many
/// branches a node has, so that at each place a search takes at most as many steps as the longest
/// text has bytes.
struct TokenSearch: Sendable {
  /// The text that ends at each node; -1 for none.
  private var ids: [Int32] = []
  /// The nodes of first bytes; -1 where no text begins with one.
  private var roots = [Int32](repeating: -1, count: 256)
  /// The node behind a node and a byte.
  private var children: [UInt64: Int32] = [:]

  /// Whether there is nothing to look for.
  var isEmpty: Bool { ids.isEmpty }

  /// Adds a text that is not empty.
  ///
  /// All texts together have fewer bytes than 2³¹.
  /// - Returns: the number of an equal text that was added before, which then stays.
  mutating func insert(_ text: [UInt8], id: Int32) -> Int32? {
    precondition(!text.isEmpty)
    let first = text[0]
    var node = roots[Int(first)]
    if node < 0 {
      node = add()
      roots[Int(first)] = node
    }
    for byte in text.dropFirst() {
      var child = self.child(of: node, byte)
      if child < 0 {
        child = add()
        children[Self.branch(node, byte)] = child
      }
      node = child
    }
    guard ids[Int(node)] < 0 else { return ids[Int(node)] }
    ids[Int(node)] = id
    return nil
  }

  /// The first place, from a place on, where a text is found, and the longest one there.
  func next(in text: Span<UInt8>, from place: Int) -> (range: Range<Int>, id: Int32)? {
    guard !isEmpty else { return nil }
    var start = place
    while start < text.count {
      if let match = longest(in: text, at: start) { return match }
      start += 1
    }
    return nil
  }

  private func longest(in text: Span<UInt8>, at start: Int) -> (range: Range<Int>, id: Int32)? {
    var node = roots[Int(text[start])]
    var place = start + 1
    var match: (range: Range<Int>, id: Int32)?
    while node >= 0 {
      if ids[Int(node)] >= 0 { match = (start..<place, ids[Int(node)]) }
      guard place < text.count else { break }
      node = child(of: node, text[place])
      place += 1
    }
    return match
  }

  private func child(of node: Int32, _ byte: UInt8) -> Int32 {
    children[Self.branch(node, byte)] ?? -1
  }

  private static func branch(_ node: Int32, _ byte: UInt8) -> UInt64 {
    UInt64(UInt32(bitPattern: node)) << 8 | UInt64(byte)
  }

  private mutating func add() -> Int32 {
    ids.append(-1)
    return Int32(ids.count - 1)
  }
}
