import Files
import Tensors

/// The kernels that are timed, an element at a time.
enum Twins {
  /// Odd, so that a rest is left behind the vectors.
  private static let count = 1021

  /// The kernels that give other bits than their definition.
  static func disagreements() -> [String] {
    let x = (0..<count).map { Float($0 * $0 % 1009) / 512 - 1 }
    let w = x.reversed() as [Float]
    let checks = [
      ("widen and narrow", convertsAsDefined(x)), ("lowRank", multipliesAsDefined(x)),
      ("addChange", addsChangesAsDefined(x, w)), ("sumOfSquares", sumsAsDefined(x)),
    ]
    return checks.filter { !$0.1 }.map(\.0)
  }

  /// BF16: the upper half of the float's bits, rounded to even.
  private static func convertsAsDefined(_ x: [Float]) -> Bool {
    var block = Block(byteCount: count * 2)
    var narrowed = block.mutableBytes(count * 2)
    Float.narrow(x.span, .bf16, into: &narrowed, count: count)
    var widened = [Float](repeating: 0, count: count)
    var span = widened.mutableSpan
    Float.widen(block.bytes(count * 2), .bf16, into: &span, count: count)
    let expected = x.map { value in
      let bits = value.bitPattern
      return Float(bitPattern: (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
    }
    return widened == expected
  }

  private static func multipliesAsDefined(_ x: [Float]) -> Bool {
    let (rows, columns, rank) = (5, 37, 16)
    var product = [Float](repeating: .nan, count: rows * columns)
    var span = product.mutableSpan
    Float.lowRank(
      into: &span, left: x.span, right: x.span, rows: rows, columns: columns, rank: rank,
      scaling: 0.5)
    let expected = (0..<rows * columns).map { place in
      let (i, j) = (place / columns, place % columns)
      var sum: Float = 0
      for k in 0..<rank { sum.addProduct(x[i * rank + k], x[k * columns + j]) }
      return sum * 0.5
    }
    return product == expected
  }

  private static func addsChangesAsDefined(_ x: [Float], _ w: [Float]) -> Bool {
    var y = x
    var span = y.mutableSpan
    Float.addChange(from: w.span, to: x.span, weight: 0.7, into: &span, count: count)
    let expected = zip(x, w).map { x, w in
      var y = x
      y.addProduct(0.7, x - w)
      return y
    }
    return y == expected
  }

  private static func sumsAsDefined(_ x: [Float]) -> Bool {
    var sums = [Double](repeating: 0, count: 16)
    for (place, value) in x.enumerated() {
      sums[place % 16].addProduct(Double(value), Double(value))
    }
    for half in [8, 4, 2, 1] {
      for k in 0..<half { sums[k] += sums[k + half] }
    }
    return Float.sumOfSquares(x.span, at: 0, count: count) == sums[0]
  }
}
