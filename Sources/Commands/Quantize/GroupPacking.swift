import Checkpoints
import Files
import Quantization
import Tensors

/// Writes rows of a weight in group-wise INT4, in the layout of its file.
///
/// Memory: the rows' codes, scales and zero points once more.
struct GroupPacking {
  let scheme: GroupScheme
  /// The shape of the weight.
  let outputs: Int
  let inputs: Int
  /// The rows that are written: of a layout by columns whole words.
  let rows: Range<Int>

  private var groups: Int { inputs / scheme.groupSize }

  /// Writes codes row by row, and (rows, groups) scales and offsets or zero points.
  ///
  /// - Throws: as `OutputFile.write`.
  func write(
    _ codes: RawSpan, scales: Span<Float>, shifts: Span<Float>,
    to target: WeightQuantizer.Target
  ) throws(PeftoolError) {
    guard let place = target.shifts else { preconditionFailure("a place for all that is made") }
    let size = scheme.scaleDType.bitCount / 8
    switch scheme.layout {
    case .mlx:
      try target.codes.file.write(codes, at: target.codes.offset + rows.lowerBound * inputs / 2)
      for (numbers, place) in [(0, target.scales), (1, place)] {
        let block = narrowed(numbers == 0 ? scales : shifts)
        try place.file.write(
          block.bytes(rows.count * groups * size),
          at: place.offset + rows.lowerBound * groups * size)
      }
      return
    case .gptq, .gptqV2:
      var words = Block(byteCount: codes.byteCount)
      var bytes = words.mutableBytes(codes.byteCount)
      // A word has eight inputs of one output, the first lowest, as a row of codes has.
      Transposition.transpose(
        codes, rows: rows.count, columns: inputs / 8, elementByteCount: 4, into: &bytes)
      try write(words, inputs / 8, bitCount: 32, to: target.codes)
    case .hqq: preconditionFailure("what is in hqq is laid out anew, and not quantized")
    case .awq:
      var words = Block(byteCount: codes.byteCount)
      var bytes = words.mutableBytes(codes.byteCount)
      GroupInt4.packAWQ(codes, rows: rows.count, columns: inputs, into: &bytes)
      try write(words, inputs, bitCount: 4, to: target.codes)
    }
    let turned = narrowed(scales).transposed(
      rows: rows.count, columns: groups, elementByteCount: size)
    try write(turned, groups, bitCount: size * 8, to: target.scales)
    try write(packed(shifts), groups, bitCount: 4, to: place)
  }

  /// Writes so many rows of the layout, each with the bits of the outputs in `rows` that lie in it.
  private func write(
    _ block: borrowing Block, _ count: Int, bitCount: Int, to place: WeightQuantizer.Target.Place
  ) throws(PeftoolError) {
    let byteCount = rows.count * bitCount / 8
    let bytes = block.bytes(count * byteCount)
    for row in 0..<count {
      try place.file.write(
        bytes.extracting(row * byteCount..<(row + 1) * byteCount),
        at: place.offset + (row * outputs + rows.lowerBound) * bitCount / 8)
    }
  }

  private func narrowed(_ numbers: Span<Float>) -> Block {
    let count = rows.count * groups
    let byteCount = count * scheme.scaleDType.bitCount / 8
    var block = Block(byteCount: byteCount)
    var bytes = block.mutableBytes(byteCount)
    Float.narrow(numbers, scheme.scaleDType, into: &bytes, count: count)
    return block
  }

  /// The words of zero points, (groups, rows / 8).
  private func packed(_ zeros: Span<Float>) -> Block {
    let count = rows.count * groups
    var turned = [Float](repeating: 0, count: count)
    var span = turned.mutableSpan
    // Any four bytes are a Float.
    var bytes = unsafe span.mutableBytes
    Transposition.transpose(
      unsafe zeros.bytes, rows: rows.count, columns: groups, elementByteCount: 4, into: &bytes)
    var words = Block(byteCount: count / 2)
    var packed = words.mutableBytes(count / 2)
    GroupInt4.packNibbles(
      turned.span, scheme.layout.nibbleOrder, less: scheme.layout.zeroOffset, into: &packed)
    return words
  }
}
