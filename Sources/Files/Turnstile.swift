import Glibc

/// Lets writers through one at a time, in the order of their offsets, or of other numbers.
@safe
final class Turnstile: @unchecked Sendable {
  // The lock and its condition must not move, so they live outside of the object; they are
  // initialised once and destroyed when nobody can hold a reference any more. `position` and
  // `isAbandoned` are touched only under the lock.
  private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let turn = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var position = 0
  private var isAbandoned = false

  init() {
    unsafe pthread_mutex_init(lock, nil)
    unsafe pthread_cond_init(turn, nil)
  }

  deinit {
    unsafe pthread_cond_destroy(turn)
    unsafe pthread_mutex_destroy(lock)
    unsafe turn.deallocate()
    unsafe lock.deallocate()
  }

  /// Waits until everything before `offset` has been written.
  func enter(at offset: Int) throws(PeftoolError) {
    unsafe pthread_mutex_lock(lock)
    defer { unsafe pthread_mutex_unlock(lock) }
    while position != offset && !isAbandoned { unsafe pthread_cond_wait(turn, lock) }
    if isAbandoned { throw PeftoolError(.interrupted, "the stream was given up") }
  }

  /// Lets the writer at `offset` go next.
  func leave(at offset: Int) {
    unsafe pthread_mutex_lock(lock)
    position = offset
    unsafe pthread_cond_broadcast(turn)
    unsafe pthread_mutex_unlock(lock)
  }

  func abandon() {
    unsafe pthread_mutex_lock(lock)
    isAbandoned = true
    unsafe pthread_cond_broadcast(turn)
    unsafe pthread_mutex_unlock(lock)
  }
}
