import Files
import Synchronization

/// The blocks that were unpacked last, for readers who take a block in several parts.
///
/// The memory of a block that has gone is used for the next one.
final class BlockCache: Sendable {
  /// A block in memory; who makes it has it alone, and then nobody writes it.
  final class Entry: @unchecked Sendable {
    private var block = Block(byteCount: 0)

    fileprivate func fill(
      byteCount: Int, _ unpack: (inout MutableRawSpan) throws(PeftoolError) -> Void
    ) throws(PeftoolError) {
      var memory = Block(byteCount: 0)
      swap(&memory, &block)
      memory.reserve(byteCount)
      var span = memory.mutableBytes(byteCount)
      try unpack(&span)
      swap(&memory, &block)
    }

    /// Copies a range of its bytes to the beginning of a span.
    func copy(_ range: Range<Int>, into span: inout MutableRawSpan) {
      block.copy(range, into: &span)
    }
  }

  private struct Entries {
    /// The one that was asked for last comes last.
    var known: [(number: Int, entry: Entry)] = []
    var spare: [Entry] = []
  }

  private let entries = Mutex(Entries())

  /// Whether a block is there.
  func holds(_ number: Int) -> Bool {
    entries.withLock { $0.known.contains { $0.number == number } }
  }

  /// A block, from here or by unpacking it; then there are no more than `capacity`.
  ///
  /// That is a few more than there are threads, as each reads along its own. Two threads that want
  /// the same block at once may both unpack it: neither waits for the other.
  func entry(
    _ number: Int, byteCount: Int, capacity: Int,
    unpack: (inout MutableRawSpan) throws(PeftoolError) -> Void
  ) throws(PeftoolError) -> Entry {
    let (known, spare) = entries.withLock { entries -> (Entry?, Entry?) in
      guard let place = entries.known.firstIndex(where: { $0.number == number }) else {
        return (nil, entries.spare.popLast())
      }
      let found = entries.known.remove(at: place)
      entries.known.append(found)
      return (found.entry, nil)
    }
    if let known { return known }
    let entry = spare ?? Entry()
    try entry.fill(byteCount: byteCount, unpack)
    entries.withLock { entries in
      if entries.known.count >= capacity {
        var (_, oldest) = entries.known.removeFirst()
        // Nobody reads it any more, nor can begin to.
        if isKnownUniquelyReferenced(&oldest) { entries.spare.append(oldest) }
      }
      entries.known.append((number, entry))
    }
    return entry
  }
}
