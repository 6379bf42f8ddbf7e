/// Words with the numbers of their tokens, so that a word that comes again need not be merged anew.
struct WordCache: Sendable {
  private struct Entry {
    let wordStart: Int
    let idStart: Int
    let idCount: Int
    let wordByteCount: UInt16
    let hash: UInt32
  }

  private var bytes: [UInt8] = []
  private var ids: [Int32] = []
  private var entries: [Entry] = []
  private var slots = [Int32](repeating: -1, count: 2 * Self.maximumCount)

  /// Words above that are forgotten, all at once; the longest, of a token a byte, take 86 MB.
  static let maximumCount = 1 << 16
  /// Longer words seldom come again.
  static let maximumWordByteCount = 255

  /// Appends the numbers of a word, if it is known.
  ///
  /// - Returns: whether it is.
  mutating func append(_ word: Span<UInt8>, to result: inout [Int32]) -> Bool {
    guard word.count <= Self.maximumWordByteCount else { return false }
    let hash = KeyedHash.value(of: word)
    let entry = slots[slot(of: word, hash)]
    guard entry >= 0 else { return false }
    let found = entries[Int(entry)]
    for index in 0..<found.idCount { result.append(ids[found.idStart + index]) }
    return true
  }

  /// Keeps a word that is not known yet.
  mutating func insert(_ word: Span<UInt8>, _ wordIDs: ArraySlice<Int32>) {
    guard word.count <= Self.maximumWordByteCount else { return }
    if entries.count == Self.maximumCount {
      bytes.removeAll(keepingCapacity: true)
      ids.removeAll(keepingCapacity: true)
      entries.removeAll(keepingCapacity: true)
      for slot in slots.indices { slots[slot] = -1 }
    }
    let hash = KeyedHash.value(of: word)
    slots[slot(of: word, hash)] = Int32(entries.count)
    entries.append(
      Entry(
        wordStart: bytes.count, idStart: ids.count, idCount: wordIDs.count,
        wordByteCount: UInt16(word.count), hash: UInt32(truncatingIfNeeded: hash >> 32)))
    bytes.append(word, 0..<word.count)
    ids += wordIDs
  }

  private func slot(of word: Span<UInt8>, _ hash: UInt64) -> Int {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: hash) & mask
    while slots[slot] >= 0, !isEntry(Int(slots[slot]), word, hash) { slot = (slot + 1) & mask }
    return slot
  }

  private func isEntry(_ index: Int, _ word: Span<UInt8>, _ hash: UInt64) -> Bool {
    let entry = entries[index]
    return entry.hash == UInt32(truncatingIfNeeded: hash >> 32)
      && Int(entry.wordByteCount) == word.count
      && bytes.span.matches(word, at: entry.wordStart)
  }
}
