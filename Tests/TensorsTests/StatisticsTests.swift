import Tensors
import Testing

@Suite struct StatisticsTests {
  @Test func figuresAreOfTheFiniteElements() {
    let x: [Float] = [1, -3, 0, -0.0, .nan, .infinity, -.infinity, 2]
    let found = ElementStatistics(x.span, count: 8)
    #expect(found.count == 8 && found.finiteCount == 5)
    #expect(found.minimum == -3 && found.maximum == 2)
    #expect(found.sum == 0 && found.mean == 0)
    #expect(found.sumOfSquares == 14 && found.norm == 14.0.squareRoot())
    #expect(found.zeroCount == 2 && found.nanCount == 1 && found.infinityCount == 2)
  }

  @Test func nothingFiniteHasNoMean() {
    let x: [Double] = [.nan, .infinity]
    let found = ElementStatistics(x.span, count: 2)
    #expect(found.mean == nil && found.minimum == .infinity && found.maximum == -.infinity)
    let none = ElementStatistics(x.span, count: 0)
    #expect(none == ElementStatistics())
  }

  @Test(arguments: [1, 15, 16, 17, 40, 100]) func partsAddUp(count: Int) {
    let x = (0..<count).map { Double($0 * 37 % 101) - 50 }
    let whole = ElementStatistics(x.span, count: count)
    #expect(whole.sum == x.reduce(0, +) && whole.sumOfSquares == x.map { $0 * $0 }.reduce(0, +))
    #expect(whole.minimum == x.min() && whole.maximum == x.max())
    #expect(whole.zeroCount == x.filter { $0 == 0 }.count)
    var parts = ElementStatistics()
    let rest = Array(x[(count / 3)...])
    parts.add(ElementStatistics(x.span, count: count / 3))
    parts.add(ElementStatistics(rest.span, count: rest.count))
    // Whole numbers add up exactly in any order.
    #expect(parts == whole)
  }
}

@Suite struct ComparisonTests {
  private func compare(
    _ a: [Double], _ b: [Double], absolute: Double = 0, relative: Double = 0
  ) -> ElementComparison {
    ElementComparison(
      a.span, b.span, count: a.count, within: .init(absolute: absolute, relative: relative))
  }

  @Test func equalElementsDoNotDiffer() {
    let nan = Double(bitPattern: 0x7FF8_0000_0000_0001)
    let found = compare(
      [1, 0, .nan, .infinity, -.infinity], [1, -0.0, nan, .infinity, -.infinity])
    #expect(found.differingCount == 0 && found.intolerableCount == 0 && found.nonfiniteCount == 0)
    #expect(found.relativeDifference == 0 && found.cosine == 1)
  }

  @Test func differencesAreMeasured() {
    let found = compare([3, 0, 1], [0, 4, 1])
    #expect(found.largestDifference == 4 && found.differingCount == 2)
    #expect(found.relativeDifference == (25.0 / 17).squareRoot())
    #expect(found.cosine == 1 / (10.0.squareRoot() * 17.0.squareRoot()))
  }

  @Test func theToleranceIsThatOfNumpy() {
    // |a − b| ≤ absolute + relative · |b|, the limit itself included.
    #expect(compare([1.5], [1], absolute: 0.5).intolerableCount == 0)
    #expect(compare([1.5], [1], absolute: 0.5.nextDown).intolerableCount == 1)
    #expect(compare([3], [2], relative: 0.5).intolerableCount == 0)
    #expect(compare([2], [3], relative: 0.3).intolerableCount == 1)
    #expect(compare([3], [2], absolute: 0.5, relative: 0.25).intolerableCount == 0)
    #expect(compare([3], [2], absolute: 0.5, relative: 0.25).differingCount == 1)
  }

  @Test func nothingIsNearWhatIsNotFinite() {
    let found = compare(
      [.nan, 1, .infinity, .infinity], [1, .nan, -.infinity, 1], absolute: .infinity)
    #expect(found.differingCount == 4 && found.nonfiniteCount == 4 && found.intolerableCount == 4)
    #expect(found.largestDifference == 0)
  }

  @Test func zeroHasNoDirection() {
    #expect(compare([0, 0], [1, 2]).cosine == nil)
    #expect(compare([0, 0], [1, 2]).relativeDifference == 1)
    #expect(compare([1, 2], [0, 0]).relativeDifference == .infinity)
    #expect(compare([3, 4], [-3, -4]).cosine == -1)
  }

  @Test(arguments: [1, 16, 17, 33, 100]) func partsAddUp(count: Int) {
    let a = (0..<count).map { Float($0 % 7) }
    let b = (0..<count).map { Float($0 % 5) }
    let tolerance = ElementComparison.Tolerance(absolute: 2, relative: 0)
    let whole = ElementComparison(a.span, b.span, count: count, within: tolerance)
    let pairs = zip(a, b)
    #expect(whole.differingCount == pairs.filter { $0 != $1 }.count)
    #expect(whole.intolerableCount == pairs.filter { abs($0 - $1) > 2 }.count)
    #expect(whole.largestDifference == pairs.map { Double(abs($0 - $1)) }.max())
    let (restA, restB) = (Array(a[(count / 3)...]), Array(b[(count / 3)...]))
    var parts = ElementComparison(a.span, b.span, count: count / 3, within: tolerance)
    parts.add(ElementComparison(restA.span, restB.span, count: restA.count, within: tolerance))
    #expect(parts == whole)
  }
}
