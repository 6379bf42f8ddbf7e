import Files
import Tensors

/// A tensor's sizes and strides over a storage, checked against it.
struct TorchView: Equatable, Sendable {
  /// torch itself takes 64 dimensions for most of what it does.
  static let maximumDimensionCount = 64

  let shape: [Int]
  /// 0 where the size is 1: no step is made there, so that torch lets any number stand.
  let strides: [Int]
  /// From the first element to the end of the last, in bytes of the storage.
  let byteRange: Range<Int>

  /// Checks a view, `offset` and strides counted in elements.
  ///
  /// - Throws: `damaged` where it is no view of so many bytes.
  init(
    dtype: DType, offset: Int, shape: [Int], strides: [Int], storageByteCount: Int
  ) throws(PeftoolError) {
    guard shape.count == strides.count, shape.count <= Self.maximumDimensionCount else {
      throw PeftoolError(
        .damaged,
        "a tensor with \(shape.count) sizes and \(strides.count) strides, expected as "
          + "many of both and at most \(Self.maximumDimensionCount)")
    }
    guard offset >= 0, (shape + strides).allSatisfy({ $0 >= 0 }) else {
      throw PeftoolError(
        .damaged,
        "a tensor with offset \(offset), sizes \(shape.shapeText) and strides "
          + "\(strides.shapeText), expected no negative number")
    }
    // Refuses a number of elements that cannot be counted.
    let byteCount = try TensorInfo.byteCount(dtype: dtype, shape: shape)
    let width = dtype.bitCount / 8
    var last = offset
    var isOverflow = false
    func add(_ term: (partialValue: Int, overflow: Bool)) {
      let (sum, overflow) = last.addingReportingOverflow(term.partialValue)
      isOverflow = isOverflow || term.overflow || overflow
      last = sum
    }
    // A tensor without elements may begin anywhere.
    if byteCount == 0 {
      last = 0
    } else {
      for (size, stride) in zip(shape, strides) {
        add((size - 1).multipliedReportingOverflow(by: stride))
      }
      add((1, false))
    }
    let (end, overflow) = last.multipliedReportingOverflow(by: width)
    guard !isOverflow, !overflow, end <= storageByteCount else {
      throw PeftoolError(
        .damaged,
        "a tensor of shape \(shape.shapeText), strides \(strides.shapeText) and offset "
          + "\(offset) in a storage of \(storageByteCount) bytes, which it does not fit")
    }
    self.shape = shape
    self.strides = zip(shape, strides).map { size, stride in size == 1 ? 0 : stride }
    byteRange = byteCount > 0 ? offset * width..<end : 0..<0
  }

  /// Whether the elements lie one behind the other in row-major order.
  var isContiguous: Bool {
    guard !shape.contains(0) else { return true }
    var expected = 1
    for (size, stride) in zip(shape, strides).reversed() where size != 1 {
      if stride != expected { return false }
      expected *= size
    }
    return true
  }
}
