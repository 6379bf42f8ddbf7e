/// Texts with a number each, found by either.
///
/// The texts lie one after the other in one array; a table of open addressing finds them.
struct TokenTable: Sendable {
  private var bytes: [UInt8] = []
  /// Where in `bytes` each entry is, in the order in which they came.
  private var ranges: [Range<Int>] = []
  private var ids: [Int32] = []
  /// The entry of each number; -1 where there is none.
  private var entries: [Int32] = []
  /// Entries at the places that their hashes point to; -1 for an empty one.
  private var slots: [Int32]

  /// An empty table with room for so many texts.
  init(capacity: Int) {
    slots = [Int32](repeating: -1, count: Self.slotCount(capacity))
    ranges.reserveCapacity(capacity)
    ids.reserveCapacity(capacity)
  }

  /// How many texts there are.
  var count: Int { ids.count }

  /// The largest number and one.
  var idLimit: Int { entries.count }

  /// Adds a text; nothing changes where it is there already.
  ///
  /// - Returns: whether it was new.
  mutating func insert(_ text: Span<UInt8>, id: Int32) -> Bool {
    precondition(id >= 0)
    if 2 * (ids.count + 1) > slots.count { grow() }
    let slot = slot(of: text)
    guard slots[slot] < 0 else { return false }
    slots[slot] = Int32(ids.count)
    let start = bytes.count
    bytes.append(text, 0..<text.count)
    ranges.append(start..<bytes.count)
    if id >= entries.count {
      entries += repeatElement(-1, count: Int(id) + 1 - entries.count)
    }
    entries[Int(id)] = Int32(ids.count)
    ids.append(id)
    return true
  }

  /// The number of a text.
  func id(of text: Span<UInt8>) -> Int32? {
    let entry = slots[slot(of: text)]
    return entry < 0 ? nil : ids[Int(entry)]
  }

  /// Whether a text has this number.
  func contains(_ id: Int32) -> Bool {
    id >= 0 && id < entries.count && entries[Int(id)] >= 0
  }

  /// The text of a number; nil where none has it.
  func text(of id: Int32) -> ArraySlice<UInt8>? {
    contains(id) ? bytes[ranges[Int(entries[Int(id)])]] : nil
  }

  private static func slotCount(_ capacity: Int) -> Int {
    var count = 16
    while count < 2 * capacity { count *= 2 }
    return count
  }

  /// The slot of a text, or the empty one where it would stand.
  private func slot(of text: Span<UInt8>) -> Int {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: KeyedHash.value(of: text)) & mask
    while slots[slot] >= 0, !isEntry(Int(slots[slot]), text) { slot = (slot + 1) & mask }
    return slot
  }

  private func isEntry(_ entry: Int, _ text: Span<UInt8>) -> Bool {
    let range = ranges[entry]
    return range.count == text.count && bytes.span.matches(text, at: range.lowerBound)
  }

  private mutating func grow() {
    slots = [Int32](repeating: -1, count: 2 * slots.count)
    for entry in ids.indices {
      slots[slot(of: bytes.span.extracting(ranges[entry]))] = Int32(entry)
    }
  }
}
