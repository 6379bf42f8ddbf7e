import CLinux
import Glibc
import Synchronization

/// Threads that wait for work, for whoever has much of it in small pieces.
///
/// `forEachBlock` starts its threads for each loop, which takes longer than a layer of a model does
/// for one token. Items are handed out in ascending order; what is done for one must not depend on
/// which thread does it.
@safe
package final class ThreadTeam: Sendable {
  /// The threads that work, the caller's among them.
  package let count: Int
  private let shared: Shared
  private let threads: [pthread_t]

  /// Starts threads; where the system gives fewer, those.
  package init(count: Int) {
    let shared = Shared()
    var threads: [pthread_t] = []
    for worker in 1..<max(1, count) {
      var thread = pthread_t()
      // The thread takes the seat over, or it is given back below.
      let seat = unsafe Unmanaged.passRetained(Seat(worker, shared))
      let status = unsafe pthread_create(
        &thread, nil,
        { context in
          guard let context = unsafe context else { return nil }
          let seat = unsafe Unmanaged<Seat>.fromOpaque(context).takeRetainedValue()
          seat.shared.work(as: seat.worker)
          return nil
        }, unsafe seat.toOpaque())
      guard status == 0 else {
        unsafe seat.release()
        break
      }
      threads.append(thread)
    }
    self.shared = shared
    self.threads = threads
    self.count = threads.count + 1
  }

  deinit {
    shared.stop()
    for thread in threads { pthread_join(thread, nil) }
  }

  /// Runs a closure for each item, and waits for all.
  ///
  /// One thread at a time may call it. `worker` counts the threads, from 0, for what each has of
  /// its own.
  package func forEach(_ items: Int, _ body: (_ worker: Int, _ item: Int) -> Void) {
    guard count > 1, items > 1 else {
      for item in 0..<max(0, items) { body(0, item) }
      return
    }
    // The threads are done with the closure when the call below returns.
    withoutActuallyEscaping(body) { body in
      nonisolated(unsafe) let body = body
      shared.run(items, others: threads.count) { worker, item in unsafe body(worker, item) }
    }
  }
}

/// A thread's place in a team.
private final class Seat: Sendable {
  let worker: Int
  let shared: Shared

  init(_ worker: Int, _ shared: Shared) {
    self.worker = worker
    self.shared = shared
  }
}

/// What the threads of a team share.
@safe
private final class Shared: @unchecked Sendable {
  // `job` and `items` are written while all threads wait, and read after `round` tells them; the
  // mutex and the condition stay where they are allocated.
  private var job: (@Sendable (Int, Int) -> Void)?
  private var items = 0
  private let next = Atomic<Int>(0)
  private let round = Atomic<Int>(0)
  private let working = Atomic<Int>(0)
  private let isStopped = Atomic<Bool>(false)
  private let isRunning = Atomic<Bool>(false)
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  /// How often a thread looks for work before it sleeps: some tens of microseconds.
  private static let patience = 2_000

  init() {
    unsafe pthread_mutex_init(mutex, nil)
    unsafe pthread_cond_init(condition, nil)
  }

  deinit {
    unsafe pthread_cond_destroy(condition)
    unsafe pthread_mutex_destroy(mutex)
    unsafe condition.deallocate()
    unsafe mutex.deallocate()
  }

  func run(_ items: Int, others: Int, _ job: @escaping @Sendable (Int, Int) -> Void) {
    let wasRunning = isRunning.exchange(true, ordering: .acquiring)
    precondition(!wasRunning, "one thread at a time")
    self.job = job
    self.items = items
    next.store(0, ordering: .relaxed)
    working.store(others, ordering: .relaxed)
    announce()
    takeItems(as: 0)
    var looks = 0
    while working.load(ordering: .acquiring) > 0 {
      looks += 1
      if looks > Self.patience { sched_yield() } else { pef_pause() }
    }
    self.job = nil
    isRunning.store(false, ordering: .releasing)
  }

  func stop() {
    isStopped.store(true, ordering: .relaxed)
    announce()
  }

  /// Tells the threads that there is something to do.
  private func announce() {
    // Nobody can look at `round` and then sleep between the two lines.
    unsafe pthread_mutex_lock(mutex)
    round.wrappingAdd(1, ordering: .releasing)
    unsafe pthread_cond_broadcast(condition)
    unsafe pthread_mutex_unlock(mutex)
  }

  func work(as worker: Int) {
    var seen = 0
    while true {
      wait(past: seen)
      seen += 1
      if isStopped.load(ordering: .relaxed) { return }
      takeItems(as: worker)
      working.wrappingSubtract(1, ordering: .releasing)
    }
  }

  private func wait(past seen: Int) {
    for _ in 0..<Self.patience {
      if round.load(ordering: .acquiring) != seen { return }
      pef_pause()
    }
    unsafe pthread_mutex_lock(mutex)
    while round.load(ordering: .acquiring) == seen {
      unsafe pthread_cond_wait(condition, mutex)
    }
    unsafe pthread_mutex_unlock(mutex)
  }

  private func takeItems(as worker: Int) {
    guard let job else { return }
    while true {
      let item = next.wrappingAdd(1, ordering: .relaxed).oldValue
      guard item < items else { return }
      job(worker, item)
    }
  }
}
