import Glibc
import Synchronization

/// What a signal has to undo, and the thread that waits for one.
///
/// A process has one set of signal handlers, so this is the one piece of state that belongs to the
/// process and not to a value.
package enum Interruption {
  private static let temporaries = Mutex<Set<String>>([])
  /// What is said where a signal only asks for an end; nil where it ends the process.
  private static let patience = Mutex<String?>(nil)
  private static let isAsked = Atomic<Bool>(false)

  /// Has SIGINT, SIGTERM and SIGHUP remove this process's temporaries and end it.
  ///
  /// The status is 128 + the signal's number. Called once, before any other thread is started.
  /// A file larger than RLIMIT_FSIZE becomes an error instead of the signal SIGXFSZ. A SIGHUP that
  /// was ignored at the start (nohup) stays ignored.
  package static func install() {
    signal(SIGXFSZ, SIG_IGN)
    var hangup = sigaction()
    // Both calls touch only the values that they are given.
    unsafe sigaction(SIGHUP, nil, &hangup)
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    unsafe sigaddset(&signals, SIGINT)
    unsafe sigaddset(&signals, SIGTERM)
    let isHangupIgnored =
      unsafe unsafeBitCast(hangup.__sigaction_handler.sa_handler, to: Int.self)
      == unsafeBitCast(SIG_IGN, to: Int.self)
    if !isHangupIgnored { unsafe sigaddset(&signals, SIGHUP) }
    unsafe pthread_sigmask(SIG_BLOCK, &signals, nil)
    var thread = pthread_t()
    let status = unsafe pthread_create(
      &thread, nil, { _ in Interruption.waitForSignal() }, nil)
    // Without the thread a signal ends the process as it always does, and the next run clears up.
    if status != 0 { unsafe pthread_sigmask(SIG_UNBLOCK, &signals, nil) }
  }

  /// Has the first signal from now on only ask for an end, and say so with a line; the second ends
  /// the process.
  ///
  /// A pipe that nobody reads any more ends nothing: what is written there is lost.
  package static func ask(saying line: String) {
    patience.withLock { $0 = line }
    signal(SIGPIPE, SIG_IGN)
  }

  /// Has a signal and a closed pipe end the process again, as before `ask`.
  package static func askNoMore() {
    patience.withLock { $0 = nil }
    signal(SIGPIPE, SIG_DFL)
  }

  /// Whether a signal has asked for an end.
  package static var isRequested: Bool { isAsked.load(ordering: .relaxed) }

  private static func waitForSignal() -> Never {
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    for signal in [SIGINT, SIGTERM, SIGHUP] { unsafe sigaddset(&signals, signal) }
    var number: Int32 = 0
    while true {
      while unsafe sigwait(&signals, &number) != 0 {}
      let line = patience.withLock { line in
        defer { line = nil }
        return line
      }
      guard let line else { break }
      isAsked.store(true, ordering: .relaxed)
      say("peftool: \(line)\n")
    }
    // The lock is kept to the end: a commit happens wholly before this or not at all.
    temporaries.withLock { paths -> Never in
      for path in paths {
        // A worker may still be creating a file in it.
        for _ in 0..<100 where (try? Folder.remove(path)) == nil { usleep(1000) }
      }
      say("peftool: interrupted\n")
      _exit(128 + number)
    }
  }

  private static func say(_ line: String) {
    // The pointer is the string's own storage, for the length of the call.
    _ = unsafe line.utf8CString.withUnsafeBufferPointer {
      unsafe write(STDERR_FILENO, $0.baseAddress, $0.count - 1)
    }
  }

  /// Remembers a path that a signal removes.
  static func register(_ path: String) { temporaries.withLock { _ = $0.insert(path) } }

  /// Does a step that must not meet a signal's removals halfway.
  static func holdOff<Failure>(_ step: () throws(Failure) -> Void) throws(Failure) {
    try temporaries.withLock { _ throws(Failure) in try step() }
  }

  /// Does the step after which the path is no longer a signal's to remove, in one piece.
  static func resign<Failure>(
    _ path: String, after step: () throws(Failure) -> Void
  ) throws(Failure) {
    try temporaries.withLock { paths throws(Failure) in
      try step()
      paths.remove(path)
    }
  }
}
