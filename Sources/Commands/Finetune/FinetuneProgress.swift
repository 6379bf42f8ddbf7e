import Files
import Reports
import Training

/// What is said while an adapter is trained: a line that is drawn anew on a terminal, and elsewhere
/// a line now and then.
final class FinetuneProgress {
  private let stepCount: Int
  private let firstStep: Int
  private let isQuiet: Bool
  private let isTerminal = Terminal.isTerminal(2)
  private var lastStep = monotonicSeconds()
  private var lastLine = -Double.infinity
  private var tokenCount = 0
  private var stepSeconds = 0.0
  /// How long the last step took.
  private(set) var secondsOfLastStep = 0.0

  /// The seconds between two lines where nobody sees a line drawn anew.
  private static let secondsBetweenLines = 10.0

  init(stepCount: Int, from step: Int, isQuiet: Bool) {
    self.stepCount = stepCount
    firstStep = step
    self.isQuiet = isQuiet
  }

  /// The speed of all steps.
  var tokensPerSecond: Double { stepSeconds > 0 ? Double(tokenCount) / stepSeconds : 0 }

  /// A step is done.
  func show(_ step: Trainer.Step) {
    let now = monotonicSeconds()
    secondsOfLastStep = now - lastStep
    lastStep = now
    tokenCount += step.tokenCount
    stepSeconds += secondsOfLastStep
    guard !isQuiet else { return }
    let left = stepSeconds / Double(step.number - firstStep) * Double(stepCount - step.number)
    let label = "step \(step.number)/\(stepCount)"
    let figures =
      "loss \(step.loss.fixed(4))  rate \(step.learningRate.measureText)  "
      + "\(tokensPerSecond.fixed(0)) tokens/s  \(left.durationText) left"
      + (SystemMemory.residentByteCount.map { "  \($0.byteText)" } ?? "")
    let text = "\(label)  \(figures)"
    if isTerminal {
      let line = ProgressLine.text(
        label, share: Double(step.number) / Double(stepCount), figures: figures,
        width: (Terminal.width(2) ?? Terminal.defaultWidth) - 1)
      writeToStandardError("\r\(line)\u{1B}[K")
    } else if now - lastLine >= Self.secondsBetweenLines || step.number == stepCount {
      lastLine = now
      writeToStandardError(text + "\n")
    }
  }

  /// An evaluation is done.
  func show(evaluation loss: Double, after step: Int) {
    skipTime()
    guard !isQuiet else { return }
    writeToStandardError(
      (isTerminal ? "\r\u{1B}[K" : "") + "step \(step): evaluation loss \(loss.fixed(4))\n")
  }

  /// The time since the last step goes to no step: something else was done.
  func skipTime() { lastStep = monotonicSeconds() }

  /// Clears the line.
  func finish() {
    if isTerminal, !isQuiet { writeToStandardError("\r\u{1B}[K") }
  }
}
