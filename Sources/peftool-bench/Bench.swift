import Files
import Glibc
import Tensors

/// Times the kernels on the row block of a 2,048-wide matrix, each checked against its scalar twin
/// before, beside a memcpy of as many bytes in the same run.
@main enum Bench {
  private static let (rows, columns, rank) = (256, 2048, 16)
  private static let count = rows * columns

  static func main() {
    let wrong = Twins.disagreements()
    guard wrong.isEmpty else {
      report("not as the scalar twin: \(wrong.joined(separator: ", "))")
      exit(1)
    }
    report("\(rows) × \(columns) elements, one thread; median, min and max of 9")
    report(line(["kernel", "median", "min", "max", "rate", "× memcpy"]))
    for dtype in [DType.bf16, .f16, .f8E4M3, .f32] { timeConversions(dtype) }
    timeArithmetic()
  }

  private static func timeConversions(_ dtype: DType) {
    let width = dtype.bitCount / 8
    var block = Block(byteCount: count * width)
    var x = numbers(count, seed: 1)
    time("narrow \(dtype.rawValue)", byteCount: count * (width + 4)) {
      var bytes = block.mutableBytes(count * width)
      Float.narrow(x.span, dtype, into: &bytes, count: count)
    }
    time("widen \(dtype.rawValue)", byteCount: count * (width + 4)) {
      var values = x.mutableSpan
      Float.widen(block.bytes(count * width), dtype, into: &values, count: count)
    }
  }

  private static func timeArithmetic() {
    let (x, w) = (numbers(count, seed: 2), numbers(count, seed: 3))
    var y = numbers(count, seed: 4)
    let (left, right) = (numbers(rows * rank, seed: 5), numbers(rank * columns, seed: 6))
    time("lowRank, rank \(rank)", byteCount: count * 4, operations: 2 * count * rank) {
      var product = y.mutableSpan
      Float.lowRank(
        into: &product, left: left.span, right: right.span, rows: rows, columns: columns,
        rank: rank, scaling: 0.5)
    }
    time("addChange", byteCount: count * 16) {
      var values = y.mutableSpan
      Float.addChange(from: w.span, to: x.span, weight: 1e-3, into: &values, count: count)
    }
    var sum = 0.0
    time("sumOfSquares", byteCount: count * 4) {
      sum += Float.sumOfSquares(w.span, at: 0, count: count)
    }
    precondition(sum > 0)
  }

  /// Times a kernel that moves so many bytes, then a copy that moves as many, and reports both.
  private static func time(
    _ name: String, byteCount: Int, operations: Int? = nil, _ kernel: () -> Void
  ) {
    let kernel = measure(kernel)
    // A copy reads each byte and writes it.
    let copied = byteCount / 2
    let from = Block(byteCount: copied)
    var to = Block(byteCount: copied)
    let copy = measure {
      var target = to.mutableBytes(copied)
      unsafe from.bytes(copied).withUnsafeBytes { from in
        unsafe target.withUnsafeMutableBytes { to in
          // Both have `copied` bytes, and two blocks do not overlap.
          unsafe to.copyMemory(from: from)
        }
      }
    }
    let rate = Double(operations ?? byteCount) / kernel.median / 1e9
    report(
      line([
        name, microseconds(kernel.median), microseconds(kernel.least),
        microseconds(kernel.most),
        "\(decimals(rate, 1)) \(operations == nil ? "GB/s" : "GFLOP/s")",
        decimals(copy.median / kernel.median, 2),
      ]))
  }

  /// The seconds that one call takes: three warm-ups, then nine runs of several calls.
  private static func measure(
    _ body: () -> Void
  ) -> (median: Double, least: Double, most: Double) {
    let calls = 20
    let clock = ContinuousClock()
    for _ in 0..<3 { body() }
    let seconds = (0..<9).map { _ in
      let duration = clock.measure { for _ in 0..<calls { body() } }
      return duration / .seconds(1) / Double(calls)
    }.sorted()
    return (seconds[4], seconds[0], seconds[8])
  }

  private static func line(_ cells: [String]) -> String {
    zip(cells, [18, 11, 11, 11, 16, 9]).enumerated().map { place, cell in
      let (text, width) = cell
      let padding = String(repeating: " ", count: max(0, width - text.count))
      return place == 0 ? text + padding : padding + text
    }.joined()
  }

  private static func microseconds(_ seconds: Double) -> String {
    decimals(seconds * 1e6, 1) + " µs"
  }

  private static func decimals(_ value: Double, _ digits: Int) -> String {
    let scale = digits == 1 ? 10.0 : 100
    let scaled = Int((value * scale).rounded())
    let fraction = String(scaled % Int(scale))
    let zeros = String(repeating: "0", count: digits - fraction.count)
    return "\(scaled / Int(scale)).\(zeros)\(fraction)"
  }

  private static func report(_ line: String) { print(line) }

  /// Numbers of the size of a model's weights, the same in each run.
  private static func numbers(_ count: Int, seed: UInt32) -> [Float] {
    var state = seed
    return (0..<count).map { _ in
      state = state &* 1_664_525 &+ 1_013_904_223
      return (Float(state >> 8) / Float(1 << 24) - 0.5) * 0.1
    }
  }
}
