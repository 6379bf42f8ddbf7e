import Files

extension [String] {
  /// Modules' paths as few globs that match them and, of their kind, no others:
  /// `model.layers.{0-21}.self_attn.{q_proj,v_proj}`.
  var patternsText: String {
    var heads: [String] = []
    var tails: [String: [String]] = [:]
    for pattern in numberedPatterns {
      let dot = pattern.utf8.lastIndex(of: UInt8(ascii: "."))
      let end = dot.map(pattern.utf8.index(after:)) ?? pattern.startIndex
      let head = String(pattern[..<end])
      if tails[head] == nil { heads.append(head) }
      tails[head, default: []].append(String(pattern[end...]))
    }
    return heads.map { head in
      let ends = (tails[head] ?? []).map(\.printable)
      let list = ends.joined(separator: ",")
      return head.printable + (ends.count == 1 ? list : "{\(list)}")
    }.joined(separator: ", ")
  }

  /// The paths, those that differ in numbers alone as one with the ranges of the numbers.
  private var numberedPatterns: [String] {
    var order: [[UInt8]] = []
    var found: [[UInt8]: [[Int]]] = [:]
    for name in map(NumberedName.init) {
      if found[name.pattern] == nil { order.append(name.pattern) }
      found[name.pattern, default: []].append(name.numbers)
    }
    return order.flatMap { pattern -> [String] in
      let rows = found[pattern] ?? []
      let columns = (rows.first ?? []).indices.map { column in
        Set(rows.map { $0[column] }).sorted()
      }
      // Of layers and experts not every pair may be there.
      guard columns.reduce(1, { $0 * $1.count }) == rows.count else {
        return rows.map { NumberedName.text(pattern, $0.map(String.init)) }
      }
      return [
        NumberedName.text(
          pattern,
          columns.map { $0.count == 1 ? "\($0[0])" : "{\($0.rangesText)}" })
      ]
    }
  }
}
