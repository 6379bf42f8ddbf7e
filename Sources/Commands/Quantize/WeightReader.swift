import Adapters
import Checkpoints
import Files
import Quantization
import Tensors

/// Reads elements of a weight in the order (out, in), whichever way it lies in its file.
///
/// Memory: the elements' bytes; for a transposed weight those of the rows that they touch, twice.
struct WeightReader: ~Copyable {
  private var input = Block(byteCount: 0)
  private var turned = Block(byteCount: 0)
  /// Where the elements begin in the block.
  private var start = 0
  private var isTurned = false

  /// Reads a range of elements.
  ///
  /// - Throws: `io`, `damaged` where the file is cut short.
  mutating func read(
    _ elements: Range<Int>, of weight: LinearModules.Weight
  ) throws(PeftoolError) {
    let tensor = weight.tensor
    let size = tensor.dtype.bitCount / 8
    isTurned = weight.isTransposed
    do throws(PeftoolError) {
      guard weight.isTransposed else {
        start = 0
        try Self.read(
          elements.lowerBound * size..<elements.upperBound * size, of: tensor, into: &input,
          at: 0, of: elements.count * size)
        return
      }
      let (rowCount, columnCount) = (weight.rowCount, weight.columnCount)
      let first = elements.lowerBound / columnCount
      let width = (elements.upperBound - 1) / columnCount - first + 1
      start = (elements.lowerBound - first * columnCount) * size
      // Each row of the file has a few elements of these rows of the weight.
      for column in 0..<columnCount {
        let offset = (column * rowCount + first) * size
        try Self.read(
          offset..<offset + width * size, of: tensor, into: &input, at: column * width * size,
          of: columnCount * width * size)
      }
      Self.turn(input, rows: columnCount, columns: width, elementByteCount: size, into: &turned)
    } catch {
      throw tensor.at(error)
    }
  }

  /// Reads bytes to a place in a block of which so many bytes are wanted in all.
  private static func read(
    _ range: Range<Int>, of tensor: StoredTensor, into block: inout Block, at place: Int,
    of byteCount: Int
  ) throws(PeftoolError) {
    if block.byteCount < byteCount { block = Block(byteCount: byteCount) }
    var bytes = block.mutableBytes(byteCount)
    var part = bytes._mutatingExtracting(place..<place + range.count)
    try tensor.source.read(tensor.info, bytes: range, into: &part)
  }

  private static func turn(
    _ block: borrowing Block, rows: Int, columns: Int, elementByteCount: Int,
    into turned: inout Block
  ) {
    let byteCount = rows * columns * elementByteCount
    if turned.byteCount < byteCount { turned = Block(byteCount: byteCount) }
    var bytes = turned.mutableBytes(byteCount)
    Transposition.transpose(
      block.bytes(byteCount), rows: rows, columns: columns, elementByteCount: elementByteCount,
      into: &bytes)
  }

  /// The bytes of a part of what was read, counted in bytes from its first element.
  @_lifetime(borrow self)
  borrowing func bytes(_ range: Range<Int>) -> RawSpan {
    let whole =
      isTurned
      ? turned.bytes(start + range.upperBound) : input.bytes(start + range.upperBound)
    return whole.extracting(start + range.lowerBound..<start + range.upperBound)
  }
}
