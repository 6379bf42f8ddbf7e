package import Files

/// One tensor as its file's header tells it: plain data, no bytes.
package struct TensorInfo: Equatable, Sendable {
  /// The name as the header has it.
  package let name: String
  /// The type of its elements.
  package let dtype: DType
  /// Outermost dimension first, elements in row-major order; empty for a scalar.
  package let shape: [Int]
  /// Where the elements lie in their file, from the file's first byte.
  ///
  /// With `strides`, from the first element to the end of the last.
  package let byteRange: Range<Int>
  /// The steps between neighbours along each dimension, in elements; nil where the elements follow
  /// one another in row-major order, as those of every format but PyTorch's do.
  package let strides: [Int]?
  /// The place of the file in its checkpoint's list of files.
  package var fileIndex: Int

  /// A tensor whose byte range has been checked against dtype and shape.
  package init(
    name: String, dtype: DType, shape: [Int], byteRange: Range<Int>, fileIndex: Int = 0,
    strides: [Int]? = nil
  ) {
    self.name = name
    self.dtype = dtype
    self.shape = shape
    self.byteRange = byteRange
    self.fileIndex = fileIndex
    self.strides = strides
  }

  /// The bytes that its elements take.
  package var byteCount: Int {
    strides == nil ? byteRange.count : elementCount * dtype.bitCount / 8
  }
  /// The product of the shape: 1 for a scalar.
  package var elementCount: Int { shape.contains(0) ? 0 : shape.reduce(1, *) }

  /// The bytes that a tensor takes, in checked arithmetic.
  ///
  /// Counts as the reference library does, in unsigned 64-bit numbers and from the left: so
  /// `[0, 2^33, 2^33]` is an empty tensor and `[2^33, 2^33, 0]` overflows.
  /// A row, the last dimension, has whole blocks.
  /// - Throws: `damaged` where the product overflows or ends inside a byte (packed F4 and F6) or a
  ///   block.
  package static func byteCount(
    dtype: DType, shape: [Int]
  ) throws(PeftoolError) -> Int {
    var bits: UInt = 1
    for dimension in shape {
      let (product, overflow) = bits.multipliedReportingOverflow(by: UInt(dimension))
      guard !overflow else {
        throw .uncountable(shape)
      }
      bits = product
    }
    if dtype.isBlock {
      guard (shape.last ?? 1) % dtype.blockElementCount == 0 else {
        throw PeftoolError(
          .damaged,
          "\(dtype.rawValue) of shape \(shape.shapeText) ends inside a block of "
            + "\(dtype.blockElementCount)")
      }
      // No block has more than two bytes for an element.
      guard bits <= UInt(Int.max / 2) else { throw .uncountable(shape) }
      return dtype.byteCount(of: Int(bits))
    }
    let (product, overflow) = bits.multipliedReportingOverflow(by: UInt(dtype.bitCount))
    guard !overflow else {
      throw .uncountable(shape)
    }
    guard product % 8 == 0 else {
      throw PeftoolError(
        .damaged, "\(dtype.rawValue) of shape \(shape.shapeText) ends inside a byte")
    }
    return Int(product / 8)
  }
}

extension PeftoolError {
  fileprivate static func uncountable(_ shape: [Int]) -> PeftoolError {
    PeftoolError(.damaged, "shape \(shape.shapeText) has more elements than can be counted")
  }
}

extension [Int] {
  /// A shape as peftool prints it: `[2, 3]`, and the first eight dimensions of a longer one.
  package var shapeText: String {
    let shown = prefix(8).map(String.init).joined(separator: ", ")
    return count > 8 ? "[\(shown), … \(count) dimensions]" : "[\(shown)]"
  }
}
