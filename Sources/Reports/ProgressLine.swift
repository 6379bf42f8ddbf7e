import Glibc
import Synchronization

/// One line on standard error that says how far the work is, for a person who waits.
///
/// Drawn after the first moments, at most ten times a second, only when standard error is a terminal, and cleared at the
/// end. In a pipe or a log nothing of it appears.
package final class ProgressLine: Sendable {
  private struct State {
    var doneByteCount = 0
    var lastDrawn = -Double.infinity
    var isFinished = false
  }

  private let label: String
  private let totalByteCount: Int
  private let startedAt = monotonicSeconds()
  private let isShown: Bool
  private let state = Mutex(State())

  private static let secondsBetweenDrawings = 0.1
  /// What is done by then needs no line, which would only flicker.
  private static let secondsBeforeFirstDrawing = 0.3

  /// A line for work on `totalByteCount` bytes; `isQuiet` keeps it off a terminal, too.
  package init(_ label: String, totalByteCount: Int, isQuiet: Bool = false) {
    self.label = label
    self.totalByteCount = totalByteCount
    isShown = !isQuiet && Terminal.isTerminal(STDERR_FILENO)
  }

  deinit { finish() }

  /// Counts bytes as done; called from any thread.
  package func advance(by byteCount: Int) {
    guard isShown else { return }
    let now = monotonicSeconds()
    state.withLock { state in
      state.doneByteCount += byteCount
      guard !state.isFinished, now - startedAt >= Self.secondsBeforeFirstDrawing,
        now - state.lastDrawn >= Self.secondsBetweenDrawings
      else { return }
      state.lastDrawn = now
      let width = Terminal.width(STDERR_FILENO) ?? Terminal.defaultWidth
      writeToStandardError(
        "\r"
          + Self.text(
            label, done: state.doneByteCount, total: totalByteCount,
            elapsedSeconds: now - startedAt, width: width - 1) + "\u{1B}[K")
    }
  }

  /// Clears the line; what is written to standard error afterwards starts at its left.
  package func finish() {
    guard isShown else { return }
    state.withLock { state in
      guard !state.isFinished else { return }
      state.isFinished = true
      if state.lastDrawn > 0 { writeToStandardError("\r\u{1B}[K") }
    }
  }

  /// The line: label, bar, bytes done of all, rate, time left; the bar takes what room is left.
  package static func text(
    _ label: String, done: Int, total: Int, elapsedSeconds: Double, width: Int
  ) -> String {
    let share = total > 0 ? min(Double(done) / Double(total), 1) : 1
    let rate = elapsedSeconds > 0 ? Double(done) / elapsedSeconds : 0
    var figures = "\(done.byteText) of \(total.byteText)"
    // The first moments tell nothing of the rate.
    if elapsedSeconds >= 0.5, rate > 0 {
      let secondsLeft = Double(max(total - done, 0)) / rate
      figures += "  \(rate.rateText)  \(secondsLeft.durationText) left"
    }
    return text(label, share: share, figures: figures, width: width)
  }

  /// The line for a share of the work, from 0 to 1: the bar takes what room the figures leave.
  package static func text(
    _ label: String, share: Double, figures: String, width: Int
  ) -> String {
    let room = min(width - label.count - figures.count - 6, 30)
    guard room >= 4 else { return String("\(label)  \(figures)".prefix(max(width, 0))) }
    let filled = Int(share * Double(room))
    let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: room - filled)
    return "\(label)  [\(bar)]  \(figures)"
  }
}

/// Seconds on a clock that never steps back.
package func monotonicSeconds() -> Double {
  var time = timespec()
  // The call fills the one struct that it is given.
  unsafe clock_gettime(CLOCK_MONOTONIC, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// Writes a message for the user; there is nobody to tell where that fails.
package func writeToStandardError(_ text: String) {
  var text = text
  text.withUTF8 { bytes in
    var done = 0
    while done < bytes.count {
      // The pointer stays inside the string's bytes: done < count.
      let count = unsafe write(
        STDERR_FILENO, bytes.baseAddress.map { unsafe $0 + done }, bytes.count - done)
      if count < 0 && errno != EINTR { return }
      done += max(count, 0)
    }
  }
}
