import CLinux
import Dispatch
package import Files
import Synchronization

/// Blocks of work that several workers take in ascending order.
package final class BlockQueue: Sendable {
  private let count: Int
  private let taken = Atomic<Int>(0)
  private let failure = Mutex<(block: Int, error: PeftoolError)?>(nil)

  init(count: Int) { self.count = count }

  /// The next block, or nil when all are taken or another worker has failed.
  package func next() -> Int? {
    guard failure.withLock({ $0 == nil }) else { return nil }
    let block = taken.wrappingAdd(1, ordering: .relaxed).oldValue
    return block < count ? block : nil
  }

  fileprivate func fail(at block: Int, _ error: PeftoolError) {
    failure.withLock { known in
      if let known, known.block <= block { return }
      known = (block, error)
    }
  }

  fileprivate var firstError: PeftoolError? { failure.withLock { $0?.error } }
}

/// Runs one worker a thread; each takes blocks from the queue until none is left.
///
/// The one parallel loop of peftool. Blocks are handed out in ascending order, so a block whose
/// predecessors must be done first may wait for them. What a worker does for a block must not
/// depend on which worker does it; then nothing depends on the number of threads.
///
/// - Throws: the error of the lowest block that failed.
package func forEachBlock(
  count: Int, threads: Int,
  _ worker: (BlockQueue, _ current: inout Int) throws(PeftoolError) -> Void
) throws(PeftoolError) {
  let queue = BlockQueue(count: count)
  // The closure leaves this function only for the length of the call below.
  withoutActuallyEscaping(worker) { worker in
    nonisolated(unsafe) let worker = worker
    DispatchQueue.concurrentPerform(iterations: max(1, min(threads, count))) { _ in
      var current = 0
      do throws(PeftoolError) {
        try unsafe worker(queue, &current)
      } catch {
        queue.fail(at: current, error)
      }
    }
  }
  if let error = queue.firstError { throw error }
}

/// The processors that this process may run on.
package var availableProcessorCount: Int { Int(pef_processor_count()) }
