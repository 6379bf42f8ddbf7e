import Glibc

/// The processor's seconds that a closure takes on this thread, however many others want it; the
/// least of three runs.
///
/// For how time grows with the input, not for how fast anything is.
package func processorSeconds(_ body: () throws -> Void) rethrows -> Double {
  func now() -> Double {
    var time = timespec()
    // It writes the struct that it is given, and nothing else.
    unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }
  var least = Double.infinity
  for _ in 0..<3 {
    let start = now()
    try body()
    least = min(least, now() - start)
  }
  return least
}
