import CKernels

/// What a run of elements holds.
///
/// All figures but the counts are of the finite elements.
package struct ElementStatistics: Equatable, Sendable {
  /// The elements that were looked at.
  package private(set) var count = 0
  /// The least finite element; infinite where none is finite.
  package private(set) var minimum = Double.infinity
  /// The greatest finite element; negatively infinite where none is finite.
  package private(set) var maximum = -Double.infinity
  /// The sum, in f64.
  package private(set) var sum = 0.0
  /// The sum of the squares, in f64.
  package private(set) var sumOfSquares = 0.0
  /// The elements that are 0 or -0.
  package private(set) var zeroCount = 0
  /// The elements that are no number.
  package private(set) var nanCount = 0
  /// The elements that are infinite.
  package private(set) var infinityCount = 0

  /// Of no elements.
  package init() {}

  /// Of the first `count` elements.
  package init<R: Real>(_ x: Span<R>, count: Int) {
    precondition(x.count >= count)
    var result = pef_statistics()
    // The kernel reads count elements, which the span has, and fills the one struct.
    unsafe x.withUnsafeBufferPointer {
      unsafe R.kernels.statistics($0.baseAddress, count, &result)
    }
    self.count = count
    minimum = result.minimum
    maximum = result.maximum
    sum = result.sum
    sumOfSquares = result.squares
    zeroCount = Int(result.zeros)
    nanCount = Int(result.nans)
    infinityCount = Int(result.infinities)
  }

  /// Adds the elements that follow; the order of such steps decides the last bits of the sums.
  package mutating func add(_ next: ElementStatistics) {
    count += next.count
    minimum = min(minimum, next.minimum)
    maximum = max(maximum, next.maximum)
    sum += next.sum
    sumOfSquares += next.sumOfSquares
    zeroCount += next.zeroCount
    nanCount += next.nanCount
    infinityCount += next.infinityCount
  }

  /// The finite elements.
  package var finiteCount: Int { count - nanCount - infinityCount }
  /// The mean, or nil where no element is finite.
  package var mean: Double? { finiteCount > 0 ? sum / Double(finiteCount) : nil }
  /// The L2 norm.
  package var norm: Double { sumOfSquares.squareRoot() }
}
