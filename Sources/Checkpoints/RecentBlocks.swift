package import Files
import JSON
import Synchronization

/// What sources that cannot read a part of a tensor have made last, by tensor.
package final class Recent<Value: Sendable>: Sendable {
  private static var capacity: Int { 4 }
  private let known = Mutex<[(name: String, value: Value)]>([])

  package init() {}

  /// The value of that name, made where it is not known; others wait meanwhile.
  ///
  /// - Throws: what `make` throws.
  package func value(
    of name: String, make: () throws(PeftoolError) -> Value
  ) throws(PeftoolError) -> Value {
    try known.withLock { known throws(PeftoolError) in
      if let found = known.first(where: { $0.name.isExactly(name) }) { return found.value }
      // Its memory is free before more is taken.
      if known.count == Self.capacity { known.removeFirst() }
      let value = try make()
      known.append((name, value))
      return value
    }
  }
}

/// The blocks that were made last.
package typealias RecentBlocks = Recent<SharedBlock>

/// A block that is not written any more, and that several threads read.
package final class SharedBlock: Sendable {
  private let block: Block

  package init(_ block: consuming Block) { self.block = block }

  /// Copies a range of its bytes to the beginning of a span.
  package func copy(_ range: Range<Int>, into span: inout MutableRawSpan) {
    block.copy(range, into: &span)
  }
}
