import Glibc
import JSON
import Reports
import Tensors

/// What quantization makes of the numbers of a weight, or of several.
struct QuantizationLoss: Sendable {
  /// The module's path.
  let module: String
  private(set) var count: Int
  private(set) var byteCount: Int
  /// The largest error.
  private(set) var largest: Double
  private var squaredError: Double
  private var squares: Double

  /// The loss of a weight of `count` elements, which takes `byteCount` bytes now.
  init(module: String, count: Int, byteCount: Int, _ comparison: ElementComparison) {
    self.module = module
    self.count = count
    self.byteCount = byteCount
    largest = comparison.largestDifference
    squaredError = comparison.sumOfSquaredDifferences
    squares = comparison.rightSumOfSquares
  }

  /// The loss of weights together.
  init(of losses: [QuantizationLoss]) {
    module = ""
    count = losses.reduce(0) { $0 + $1.count }
    byteCount = losses.reduce(0) { $0 + $1.byteCount }
    largest = losses.map(\.largest).max() ?? 0
    squaredError = losses.reduce(0) { $0 + $1.squaredError }
    squares = losses.reduce(0) { $0 + $1.squares }
  }

  /// The root of the mean square error.
  var rms: Double { (squaredError / Double(max(1, count))).squareRoot() }

  /// The ratio of signal to noise, 10 log10(Σ w² / Σ (w' − w)²) dB; infinite without an error.
  var decibels: Double {
    squaredError == 0 ? .infinity : 10 * log10(squares / squaredError)
  }

  /// The bits that a parameter takes, scales and all.
  var bits: Double { Double(byteCount) * 8 / Double(max(1, count)) }

  /// The ratio in words, one digit after the point.
  var decibelText: String { decibels.isFinite ? decibels.fixed(1) : "exact" }

  /// What `--json` has of it.
  func members(named: Bool) -> [JSON.Member] {
    (named ? [.init("module", .string(module))] : []) + [
      .init("parameters", .number(count)), .init("bytes", .number(byteCount)),
      .init("bits", .number(bits)), .init("rms", .number(rms)),
      .init("largest", .number(largest)), .init("snr", .number(decibels)),
    ]
  }
}

extension [QuantizationLoss] {
  /// The worst first; those alike by name.
  var byWorst: [QuantizationLoss] {
    sorted { a, b in
      a.decibels == b.decibels
        ? a.module.precedesByBytes(b.module) : a.decibels < b.decibels
    }
  }
}
