import Checkpoints
import Files
import Reports
import Tensors

/// The elements of a tensor that are no finite numbers.
struct NonfiniteElements: Equatable, Sendable {
  var nanCount = 0
  var infinityCount = 0
  /// The place of the first, counted through the tensor.
  var first: Int?
  /// Why the rest could not be read.
  var failure: PeftoolError?

  var count: Int { nanCount + infinityCount }

  mutating func add(_ next: NonfiniteElements) {
    nanCount += next.nanCount
    infinityCount += next.infinityCount
    first = first ?? next.first
    failure = failure ?? next.failure
  }

  /// The fault in words: `has 3 NaN and 1 infinity among 64 elements, the first at [0, 7]`.
  func reason(in tensor: TensorInfo) -> String {
    var kinds: [String] = []
    if nanCount > 0 { kinds.append("\(nanCount.groupedText) NaN") }
    if infinityCount > 0 {
      kinds.append(infinityCount == 1 ? "1 infinity" : "\(infinityCount.groupedText) infinities")
    }
    let place = first.map { ", the first at \(tensor.coordinates(of: $0).shapeText)" } ?? ""
    return "has \(kinds.joined(separator: " and ")) among "
      + "\(tensor.elementCount.text(of: "element"))\(place); expected finite numbers"
  }
}

extension TensorInfo {
  /// The indices of an element, by its place in the tensor.
  fileprivate func coordinates(of place: Int) -> [Int] {
    var rest = place
    let reversed = shape.reversed().map { dimension in
      defer { rest /= dimension }
      return rest % dimension
    }
    return reversed.reversed()
  }
}

/// Looks for NaN and infinity, by one pass over some tensors.
///
/// Peak memory: 1.5 MB a thread.
/// - Returns: for each tensor what is not finite, and why it could not be read where it could not.
func nonfiniteElements(
  of source: any TensorSource, where isRead: (TensorInfo) -> Bool, threads: Int,
  progress: ProgressLine
) throws(PeftoolError) -> [NonfiniteElements] {
  let tensors = source.tensors
  let pass = ElementPass(
    elementCounts: tensors.map { isRead($0) ? $0.elementCount : 0 })
  let parts = try pass.run(threads: threads) { (segment, scratch) throws(PeftoolError) in
    let tensor = tensors[segment.item]
    var sum = NonfiniteElements()
    for elements in segment.blocks {
      do throws(PeftoolError) {
        try source.read(tensor, elements: elements, as: tensor.dtype, into: &scratch.bytes)
      } catch {
        // The other tensors may still be read: every fault counts.
        sum.failure = error
        return sum
      }
      let bytes = scratch.bytes.bytes(tensor.dtype.byteCount(of: elements.count))
      if tensor.dtype.mayHoldNonfinite(bytes, count: elements.count) {
        sum.add(
          NonfiniteElements(
            bytes, tensor.dtype, count: elements.count, startingAt: elements.lowerBound))
      }
      progress.advance(by: tensor.dtype.byteCount(of: elements.count))
    }
    return sum
  }
  return parts.map { $0.reduce(into: NonfiniteElements()) { $0.add($1) } }
}

extension DType {
  /// Whether some of its bit patterns are NaN or infinite.
  var hasNonfinite: Bool {
    switch self {
    case .f64, .f32, .f16, .bf16, .c64, .f8E4M3, .f8E5M2, .f8E8M0, .f8E4M3FNUZ, .f8E5M2FNUZ: true
    case .bool, .f4, .f6E2M3, .f6E3M2, .u8, .i8, .i16, .u16, .i32, .u32, .i64, .u64: false
    // Of a block the scale may be.
    default: isBlock
    }
  }

  /// The one byte that is NaN, for the dtypes that have no other and no infinity.
  fileprivate var nanByte: UInt8? {
    switch self {
    case .f8E8M0: 0xFF
    case .f8E4M3FNUZ, .f8E5M2FNUZ: 0x80
    default: nil
    }
  }

  /// Whether some of the elements are NaN or infinite.
  fileprivate func mayHoldNonfinite(_ bytes: RawSpan, count: Int) -> Bool {
    if nanByte != nil || isBlock { return true }
    return self == .c64
      ? DType.f32.nonfiniteCount(bytes, count: 2 * count) > 0
      : nonfiniteCount(bytes, count: count) > 0
  }
}

extension NonfiniteElements {
  /// Counts kinds and finds the first, element by element: blocks that hold any are rare.
  fileprivate init(_ bytes: RawSpan, _ dtype: DType, count: Int, startingAt start: Int) {
    if let nan = dtype.nanByte {
      for place in 0..<count where bytes.unsafeByte(at: place) == nan {
        nanCount += 1
        first = first ?? start + place
      }
      return
    }
    let partCount = dtype == .c64 ? 2 : 1
    var values = [Double](repeating: 0, count: count * partCount)
    var span = values.mutableSpan
    Double.read(bytes, dtype == .c64 ? .f32 : dtype, into: &span, count: count * partCount)
    for place in 0..<count {
      let parts = values[place * partCount..<(place + 1) * partCount]
      guard !parts.allSatisfy(\.isFinite) else { continue }
      first = first ?? start + place
      // A complex number with a NaN and an infinity counts as NaN.
      if parts.contains(where: \.isNaN) { nanCount += 1 } else { infinityCount += 1 }
    }
  }
}

extension RawSpan {
  /// One byte; the load checks the offset.
  fileprivate func unsafeByte(at offset: Int) -> UInt8 {
    // Any bit pattern is a UInt8.
    unsafe unsafeLoad(fromByteOffset: offset, as: UInt8.self)
  }
}
