import Fixtures
import Tensors
import Testing

/// What every kernel is compared with, for one type: the definition, an element at a time.
private struct Twin<R: Real> {
  var random: SplitMix64

  init(seed: Int) { random = SplitMix64(seed: seed) }

  mutating func numbers(_ count: Int) -> [R] {
    (0..<count).map { _ in R(Double.random(in: -2..<2, using: &random)) }
  }

  mutating func checkLowRank(rows: Int, columns: Int, rank: Int) {
    let (left, right) = (numbers(rows * rank), numbers(rank * columns))
    let scaling = R(0.75)
    var expected = [R](repeating: 0, count: rows * columns)
    for i in 0..<rows {
      for j in 0..<columns {
        var sum: R = 0
        for k in 0..<rank { sum.addProduct(left[i * rank + k], right[k * columns + j]) }
        expected[i * columns + j] = sum * scaling
      }
    }
    // What is there before does not count.
    var product = [R](repeating: .nan, count: rows * columns)
    var span = product.mutableSpan
    R.lowRank(
      into: &span, left: left.span, right: right.span, rows: rows, columns: columns, rank: rank,
      scaling: scaling)
    #expect(product == expected, "\(rows) × \(columns), rank \(rank)")
  }

  mutating func checkElementwise(count: Int) {
    let (x, w, y) = (numbers(count), numbers(count), numbers(count + 3))
    var found = y
    var span = found.mutableSpan
    R.add(x.span, to: &span, count: count)
    #expect(found == zip(y, x).map { $0 + $1 } + y.suffix(3))

    found = y
    span = found.mutableSpan
    R.multiply(&span, at: 2, by: x.span, count: count)
    #expect(found == y.prefix(2) + zip(y.dropFirst(2), x).map { $0 * $1 } + y.suffix(1))

    found = y
    span = found.mutableSpan
    R.scale(&span, at: 1, by: 0.3, count: count)
    #expect(found == y.prefix(1) + y.dropFirst().prefix(count).map { $0 * 0.3 } + y.suffix(2))

    found = y + [.nan, .infinity, -.infinity, R(-3), R(2.5)]
    span = found.mutableSpan
    R.clamp(&span, to: 1.5, count: count + 8)
    for (result, x) in zip(found, y) { #expect(result == min(max(x, -1.5), 1.5)) }
    #expect(found[y.count].isNaN)
    #expect(found.suffix(4) == [.infinity, -.infinity, -1.5, 1.5])

    found = y
    span = found.mutableSpan
    R.addChange(from: w.span, to: x.span, weight: 0.7, into: &span, count: count)
    var expected = y
    for i in 0..<count { expected[i].addProduct(0.7, x[i] - w[i]) }
    #expect(found == expected)

    span = found.mutableSpan
    R.addScaled(x.span, by: -0.3, to: &span, count: count)
    for i in 0..<count { expected[i].addProduct(-0.3, x[i]) }
    #expect(found == expected)
  }

  private func sumOfSquares(_ terms: [Double]) -> Double { sumOfProducts(terms, terms) }

  /// Sixteen partial sums, added up in pairs.
  private func sumOfProducts(_ lefts: [Double], _ rights: [Double]) -> Double {
    var sums = [Double](repeating: 0, count: 16)
    for (place, terms) in zip(lefts, rights).enumerated() {
      sums[place % 16].addProduct(terms.0, terms.1)
    }
    for half in [8, 4, 2, 1] {
      for k in 0..<half { sums[k] += sums[k + half] }
    }
    return sums[0]
  }

  mutating func checkSums(count: Int) {
    let (x, w) = (numbers(count), numbers(count))
    let wide = x.map { Double($0) }
    #expect(R.sumOfSquares(x.span, at: 0, count: count) == sumOfSquares(wide))
    if count > 3 {
      #expect(
        R.sumOfSquares(x.span, at: 2, count: count - 3)
          == sumOfSquares(Array(wide[2..<count - 1])))
    }
    #expect(
      R.sumOfProducts(x.span, w.span, at: 0, count: count)
        == sumOfProducts(wide, w.map { Double($0) }))
    let changes = zip(wide, w).map { $0 - Double($1) }
    #expect(R.sumOfSquaredChange(x.span, from: w.span, count: count) == sumOfSquares(changes))

    var sums = (0..<count).map { Double($0) }
    var expected = sums
    for (i, value) in wide.enumerated() { expected[i].addProduct(value, value) }
    var span = sums.mutableSpan
    R.addSquares(of: x.span, at: 0, to: &span, count: count)
    #expect(sums == expected)
  }
}

@Suite struct ArithmeticTests {
  /// Around the widths of vectors and tiles: 8, 16, 32 and 64 columns, 2 and 4 rows.
  @Test(arguments: [1, 2, 3, 4, 5, 9], [1, 7, 8, 15, 16, 17, 31, 33, 64, 65, 131])
  func theLowRankProductIsItsDefinition(rows: Int, columns: Int) {
    for rank in [0, 1, 2, 5, 16] {
      var single = Twin<Float>(seed: rows)
      single.checkLowRank(rows: rows, columns: columns, rank: rank)
      var double = Twin<Double>(seed: rows)
      double.checkLowRank(rows: rows, columns: columns, rank: rank)
    }
  }

  @Test(arguments: [0, 1, 2, 15, 16, 17, 31, 33, 64, 100, 257])
  func elementsAreComputedAsDefined(count: Int) {
    var single = Twin<Float>(seed: count)
    single.checkElementwise(count: count)
    single.checkSums(count: count)
    var double = Twin<Double>(seed: count)
    double.checkElementwise(count: count)
    double.checkSums(count: count)
  }
}
