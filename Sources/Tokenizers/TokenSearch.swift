/// Texts that are looked for all at once: at each place the longest, from left to right
/// (leftmost-longest, as in the `tokenizers` library).
struct TokenSearch: Sendable {
  /// A node of a tree of bytes; children of one node are linked.
  private struct Node {
    let byte: UInt8
    var firstChild: Int32 = -1
    var sibling: Int32 = -1
    /// The text that ends here; -1 for none.
    var id: Int32 = -1
  }

  private var nodes: [Node] = []
  /// The nodes of first bytes; -1 where no text begins with one.
  private var roots = [Int32](repeating: -1, count: 256)

  /// Whether there is nothing to look for.
  var isEmpty: Bool { nodes.isEmpty }

  /// Adds a text that is not empty.
  ///
  /// - Returns: the number of an equal text that was added before, which then stays.
  mutating func insert(_ text: [UInt8], id: Int32) -> Int32? {
    precondition(!text.isEmpty)
    let first = text[0]
    var node = roots[Int(first)]
    if node < 0 {
      node = add(first)
      roots[Int(first)] = node
    }
    for byte in text.dropFirst() {
      var child = self.child(of: node, byte)
      if child < 0 {
        child = add(byte)
        nodes[Int(child)].sibling = nodes[Int(node)].firstChild
        nodes[Int(node)].firstChild = child
      }
      node = child
    }
    guard nodes[Int(node)].id < 0 else { return nodes[Int(node)].id }
    nodes[Int(node)].id = id
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
      if nodes[Int(node)].id >= 0 { match = (start..<place, nodes[Int(node)].id) }
      guard place < text.count else { break }
      node = child(of: node, text[place])
      place += 1
    }
    return match
  }

  private func child(of node: Int32, _ byte: UInt8) -> Int32 {
    var child = nodes[Int(node)].firstChild
    while child >= 0, nodes[Int(child)].byte != byte { child = nodes[Int(child)].sibling }
    return child
  }

  private mutating func add(_ byte: UInt8) -> Int32 {
    nodes.append(Node(byte: byte))
    return Int32(nodes.count - 1)
  }
}
