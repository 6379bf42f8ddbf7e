import CLinux
package import Files
import Glibc
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
      // Who was only told to stop does not know why.
      if let known, known.block <= block || error.kind == .interrupted,
        known.error.kind != .interrupted
      {
        return
      }
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
    onThreads(min(threads, count)) {
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

/// What a function makes of each of so many places, in their order.
///
/// - Throws: the error of the lowest place that failed.
package func mapBlocks<Result: Sendable>(
  count: Int, threads: Int, _ body: (_ place: Int) throws(PeftoolError) -> Result
) throws(PeftoolError) -> [Result] {
  let found = Mutex<[Int: Result]>([:])
  try forEachBlock(count: count, threads: threads) { (queue, current) throws(PeftoolError) in
    while let place = queue.next() {
      current = place
      let result = try body(place)
      found.withLock { $0[place] = result }
    }
  }
  return found.withLock { known in (0..<count).compactMap { known[$0] } }
}

/// A closure that several threads run.
@safe
private final class Work: @unchecked Sendable {
  // Every thread calls it, and `onThreads` outlives them all; it shares what it captures as
  // `forEachBlock` allows its worker to.
  let body: () -> Void

  init(_ body: @escaping () -> Void) { self.body = body }
}

/// Runs a closure on so many threads, this one among them, and waits for all.
///
/// Where the system gives fewer threads (a limit on processes, no memory for a stack), on those:
/// libdispatch would wait for more without end.
private func onThreads(_ count: Int, _ body: @escaping () -> Void) {
  let work = Work(body)
  var others: [pthread_t] = []
  // `work` lives until all threads have been joined; each thread is joined once.
  withExtendedLifetime(work) {
    for _ in 1..<max(1, count) {
      var thread = pthread_t()
      let status = unsafe pthread_create(
        &thread, nil,
        { context in
          guard let context = unsafe context else { return nil }
          unsafe Unmanaged<Work>.fromOpaque(context).takeUnretainedValue().body()
          return nil
        }, Unmanaged.passUnretained(work).toOpaque())
      guard status == 0 else { break }
      others.append(thread)
    }
    body()
    for thread in others { pthread_join(thread, nil) }
  }
}

/// The processors that this process may run on.
package var availableProcessorCount: Int { Int(pef_processor_count()) }
