import Checkpoints
import Files
import Reports
import Tensors

/// Two tensors that are compared, and how.
struct TensorPair: Sendable {
  /// The name in A, which is that in B but for an output layer tied to its embedding.
  let name: String
  let left: TensorInfo
  let right: TensorInfo
  /// What the bytes are compared as; nil where that has no sense: other shapes, or two dtypes of
  /// which one is packed or complex.
  let manner: Manner?

  enum Manner: Sendable {
    /// Numbers, in f32 where that holds all values of both dtypes, else in f64.
    case numbers
    /// Complex numbers, each as two.
    case complexNumbers
    /// Packed numbers, byte by byte.
    case bytes
  }

  init(_ name: String, _ left: TensorInfo, _ right: TensorInfo) {
    (self.name, self.left, self.right) = (name, left, right)
    manner =
      if left.shape != right.shape {
        nil
      } else if left.dtype.isNumeric, right.dtype.isNumeric {
        .numbers
      } else if left.dtype != right.dtype {
        nil
      } else if left.dtype == .c64 {
        .complexNumbers
      } else {
        .bytes
      }
  }

  /// What is compared at a time: elements, parts of complex ones, or bytes.
  fileprivate var unitCount: Int {
    switch manner {
    case .numbers: left.elementCount
    case .complexNumbers: 2 * left.elementCount
    case .bytes: left.byteCount
    case nil: 0
    }
  }

  /// The dtypes that units are read as.
  fileprivate var dtypes: (left: DType, right: DType) {
    switch manner {
    case .numbers, nil: (left.dtype, right.dtype)
    case .complexNumbers: (.f32, .f32)
    case .bytes: (.u8, .u8)
    }
  }

  /// The bytes that are read of both.
  var comparedByteCount: Int { manner == nil ? 0 : left.byteCount + right.byteCount }
}

/// How two tensors differ.
struct TensorDifference: Sendable {
  private var elements = ElementComparison()
  private var integers = IntegerComparison()

  /// The elements that are not equal; of packed dtypes the bytes.
  var differingCount: Int { max(elements.differingCount, integers.differingCount) }
  /// Those of them that the tolerance does not cover.
  var intolerableCount: Int { max(elements.intolerableCount, integers.intolerableCount) }
  /// Those of them of which one side is NaN or infinite.
  var nonfiniteCount: Int { elements.nonfiniteCount }
  /// The largest |a − b|, of finite elements.
  var largest: Double { max(elements.largestDifference, integers.largest) }
  /// ‖a − b‖ / ‖b‖, of finite elements.
  var relative: Double { elements.relativeDifference }
  /// The cosine of the angle between the two; nil where one is zero.
  var cosine: Double? { elements.cosine }

  mutating func add(_ next: TensorDifference) {
    elements.add(next.elements)
    integers.add(next.integers)
  }

  fileprivate mutating func add(_ next: ElementComparison) { elements.add(next) }
  fileprivate mutating func add(_ next: IntegerComparison) { integers.add(next) }

  /// Whether this one is worse than another: what the tolerance does not cover first, then numbers
  /// against NaN and infinities, then by the relative difference.
  func isWorse(than other: TensorDifference) -> Bool {
    func rank(_ difference: TensorDifference) -> (Int, Int, Double, Double) {
      (
        min(difference.intolerableCount, 1), min(difference.nonfiniteCount, 1),
        difference.relative, difference.largest
      )
    }
    return rank(self) > rank(other)
  }
}

/// How 64-bit integers differ, exactly; as doubles 2⁵³ and 2⁵³ + 1 are the same.
private struct IntegerComparison: Sendable {
  var differingCount = 0
  var intolerableCount = 0
  var largest = 0.0

  init() {}

  init<I: FixedWidthInteger & BitwiseCopyable>(
    _ type: I.Type, _ left: RawSpan, _ right: RawSpan, within tolerance: DiffTolerance
  ) {
    for offset in stride(from: 0, to: left.byteCount, by: MemoryLayout<I>.size) {
      // Any bit pattern is an integer; the loads check their offset.
      let a = unsafe left.unsafeLoadUnaligned(fromByteOffset: offset, as: I.self)
      let b = unsafe right.unsafeLoadUnaligned(fromByteOffset: offset, as: I.self)
      guard a != b else { continue }
      // The wrapped difference of the larger and the smaller is right as an unsigned number.
      let bits = a > b ? a &- b : b &- a
      let difference = Double(I.Magnitude(truncatingIfNeeded: bits))
      differingCount += 1
      if difference > tolerance.absolute + tolerance.relative * Double(b.magnitude) {
        intolerableCount += 1
      }
      largest = max(largest, difference)
    }
  }

  mutating func add(_ next: IntegerComparison) {
    differingCount += next.differingCount
    intolerableCount += next.intolerableCount
    largest = max(largest, next.largest)
  }
}

/// How far apart two elements may be: |a − b| ≤ absolute + relative · |b|, as numpy's `allclose`.
struct DiffTolerance: Equatable, Sendable {
  var absolute = 0.0
  var relative = 0.0
}

/// Compares pairs of tensors by one pass over both.
///
/// Peak memory: 2 MB a thread.
/// - Returns: for each pair its difference, or nil where it cannot be compared.
/// - Throws: as `TensorSource.read`, and `different` where a file changed meanwhile.
func differences(
  of pairs: [TensorPair], in left: any TensorSource, and right: any TensorSource,
  within tolerance: DiffTolerance, threads: Int, progress: ProgressLine
) throws(PeftoolError) -> [TensorDifference?] {
  let pass = ElementPass(elementCounts: pairs.map(\.unitCount))
  let parts = try pass.run(threads: threads) { (segment, scratch) throws(PeftoolError) in
    let pair = pairs[segment.item]
    let dtypes = pair.dtypes
    var sum = TensorDifference()
    for units in segment.blocks {
      try left.read(
        pair.left, elements: units, as: dtypes.left, into: &scratch.bytes)
      try right.read(
        pair.right, elements: units, as: dtypes.right, into: &scratch.otherBytes)
      scratch.compare(dtypes, count: units.count, within: tolerance, into: &sum)
      progress.advance(
        by: dtypes.left.byteCount(of: units.count) + dtypes.right.byteCount(of: units.count))
    }
    return sum
  }
  try left.verifyUnchanged()
  try right.verifyUnchanged()
  return zip(pairs, parts).map { pair, parts in
    pair.manner == nil ? nil : parts.reduce(into: TensorDifference()) { $0.add($1) }
  }
}

extension ElementScratch {
  /// Adds the difference of the two blocks' first `count` units.
  fileprivate mutating func compare(
    _ dtypes: (left: DType, right: DType), count: Int, within tolerance: DiffTolerance,
    into sum: inout TensorDifference
  ) {
    let elements = ElementComparison.Tolerance(
      absolute: tolerance.absolute, relative: tolerance.relative)
    sum.add(
      dtypes.left.fitsSingle && dtypes.right.fitsSingle
        ? Self.compare(bytes, otherBytes, dtypes, count: count, within: elements, &singles)
        : Self.compare(bytes, otherBytes, dtypes, count: count, within: elements, &doubles))
    switch dtypes {
    case (.i64, .i64):
      sum.add(
        IntegerComparison(
          Int64.self, bytes.bytes(8 * count), otherBytes.bytes(8 * count), within: tolerance))
    case (.u64, .u64):
      sum.add(
        IntegerComparison(
          UInt64.self, bytes.bytes(8 * count), otherBytes.bytes(8 * count), within: tolerance))
    default: break
    }
  }

  private static func compare<R>(
    _ left: borrowing Block, _ right: borrowing Block, _ dtypes: (left: DType, right: DType),
    count: Int, within tolerance: ElementComparison.Tolerance, _ values: inout Values<R>
  ) -> ElementComparison {
    values.readLeft(left.bytes(dtypes.left.byteCount(of: count)), dtypes.left, count: count)
    values.readRight(right.bytes(dtypes.right.byteCount(of: count)), dtypes.right, count: count)
    return ElementComparison(values.left.span, values.right.span, count: count, within: tolerance)
  }
}
