import Files
import Synchronization

/// The blocks that were unpacked last, for readers who take a block in several parts.
final class BlockCache: Sendable {
  private let capacity: Int
  /// The block that was asked for last comes last.
  private let blocks = Mutex<[(number: Int, bytes: [UInt8])]>([])

  /// A cache of so many blocks: a few more than there are threads, as each reads along its own.
  init(capacity: Int) { self.capacity = capacity }

  /// Whether a block is there.
  func holds(_ number: Int) -> Bool {
    blocks.withLock { $0.contains { $0.number == number } }
  }

  /// The bytes of a block, from here or by unpacking it.
  ///
  /// Two threads that want the same block at once may both unpack it: neither waits for the other.
  func bytes(
    of number: Int, unpack: () throws(PeftoolError) -> [UInt8]
  ) throws(PeftoolError) -> [UInt8] {
    let known = blocks.withLock { blocks -> [UInt8]? in
      guard let place = blocks.firstIndex(where: { $0.number == number }) else { return nil }
      let found = blocks.remove(at: place)
      blocks.append(found)
      return found.bytes
    }
    if let known { return known }
    let bytes = try unpack()
    blocks.withLock { blocks in
      blocks.removeAll { $0.number == number }
      if blocks.count >= capacity { blocks.removeFirst() }
      blocks.append((number, bytes))
    }
    return bytes
  }
}
