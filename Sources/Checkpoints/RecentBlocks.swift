package import Files
import JSON
import Synchronization

/// The blocks that sources which cannot read a part of a tensor have made last, by tensor.
package final class RecentBlocks: Sendable {
  private static let capacity = 4
  private let known = Mutex<[(name: String, block: SharedBlock)]>([])

  package init() {}

  /// The block of that name, made where it is not known; others wait meanwhile.
  ///
  /// - Throws: what `make` throws.
  package func block(
    of name: String, make: () throws(PeftoolError) -> SharedBlock
  ) throws(PeftoolError) -> SharedBlock {
    try known.withLock { known throws(PeftoolError) in
      if let found = known.first(where: { $0.name.isExactly(name) }) { return found.block }
      // Its memory is free before more is taken.
      if known.count == Self.capacity { known.removeFirst() }
      let block = try make()
      known.append((name, block))
      return block
    }
  }
}

/// A block that is not written any more, and that several threads read.
package final class SharedBlock: Sendable {
  private let block: Block

  package init(_ block: consuming Block) { self.block = block }

  /// Copies a range of its bytes to the beginning of a span.
  package func copy(_ range: Range<Int>, into span: inout MutableRawSpan) {
    block.copy(range, into: &span)
  }
}
