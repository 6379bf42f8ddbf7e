import CKernels

/// How two runs of elements differ, a pair at a time.
///
/// NaN equals NaN whatever its bits, and 0 equals -0. The sums are of the pairs of finite elements,
/// in f64.
package struct ElementComparison: Equatable, Sendable {
  /// How far apart a pair may be: |a − b| ≤ absolute + relative · |b|.
  package struct Tolerance: Equatable, Sendable {
    let absolute: Double
    let relative: Double

    /// A tolerance; both parts at least 0.
    package init(absolute: Double, relative: Double) {
      self.absolute = absolute
      self.relative = relative
    }
  }

  /// The largest |a − b|.
  package private(set) var largestDifference = 0.0
  /// Σ (a − b)².
  package private(set) var sumOfSquaredDifferences = 0.0
  private var leftSumOfSquares = 0.0
  /// Σ b².
  package private(set) var rightSumOfSquares = 0.0
  private var sumOfProducts = 0.0
  /// The pairs that are not equal.
  package private(set) var differingCount = 0
  /// The pairs that are not equal and not within the tolerance.
  package private(set) var intolerableCount = 0
  /// The pairs that are not equal and of which one is NaN or infinite.
  package private(set) var nonfiniteCount = 0

  /// Of no elements.
  package init() {}

  /// Of the first `count` elements of both.
  package init<R: Real>(_ a: Span<R>, _ b: Span<R>, count: Int, within tolerance: Tolerance) {
    precondition(a.count >= count && b.count >= count)
    var result = pef_comparison()
    // The kernel reads count elements, which both spans have, and fills the one struct.
    unsafe a.withUnsafeBufferPointer { a in
      unsafe b.withUnsafeBufferPointer { b in
        unsafe R.kernels.compare(
          a.baseAddress, b.baseAddress, count, tolerance.absolute, tolerance.relative, &result)
      }
    }
    largestDifference = result.largest
    sumOfSquaredDifferences = result.change
    leftSumOfSquares = result.left
    rightSumOfSquares = result.right
    sumOfProducts = result.products
    differingCount = Int(result.differing)
    intolerableCount = Int(result.beyond)
    nonfiniteCount = Int(result.nonfinite)
  }

  /// Adds the pairs that follow; the order of such steps decides the last bits of the sums.
  package mutating func add(_ next: ElementComparison) {
    largestDifference = max(largestDifference, next.largestDifference)
    sumOfSquaredDifferences += next.sumOfSquaredDifferences
    leftSumOfSquares += next.leftSumOfSquares
    rightSumOfSquares += next.rightSumOfSquares
    sumOfProducts += next.sumOfProducts
    differingCount += next.differingCount
    intolerableCount += next.intolerableCount
    nonfiniteCount += next.nonfiniteCount
  }

  /// ‖a − b‖ / ‖b‖; infinite where b is zero and a is not.
  package var relativeDifference: Double {
    sumOfSquaredDifferences == 0
      ? 0 : (sumOfSquaredDifferences / rightSumOfSquares).squareRoot()
  }

  /// The cosine of the angle between a and b, or nil where one of them is zero.
  package var cosine: Double? {
    guard leftSumOfSquares > 0, rightSumOfSquares > 0 else { return nil }
    let cosine =
      sumOfProducts / (leftSumOfSquares.squareRoot() * rightSumOfSquares.squareRoot())
    // Rounding may step past 1.
    return max(-1, min(cosine, 1))
  }
}
