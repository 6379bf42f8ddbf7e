import Checkpoints
import Files
import Quantization

// The kernels on a worker's buffers: a span of one stored property would borrow them all.
extension FourBitCode {
  /// Codes a tile of a step; `codes` and `scales` are the whole step's.
  func quantize(
    _ values: [Float], _ tile: Range<Int>, blockSize: Int, into codes: inout Block,
    scales: inout [Float]
  ) {
    var bytes = codes.mutableBytes(Self.byteCount(of: tile.upperBound))
    var part = bytes._mutatingExtracting(tile.lowerBound / 2..<bytes.byteCount)
    var all = scales.mutableSpan
    var absmax = all._mutatingExtracting(tile.blocks(of: blockSize))
    quantize(values.span, count: tile.count, blockSize: blockSize, into: &part, absmax: &absmax)
  }

  /// What the codes of a tile stand for.
  func dequantize(
    _ codes: borrowing Block, _ tile: Range<Int>, blockSize: Int, scales: [Float],
    into values: inout [Float]
  ) {
    let end = Self.byteCount(of: tile.upperBound)
    var span = values.mutableSpan
    dequantize(
      codes.bytes(end).extracting(tile.lowerBound / 2..<end),
      absmax: scales.span.extracting(tile.blocks(of: blockSize)), count: tile.count,
      blockSize: blockSize, into: &span)
  }
}

extension Range<Int> {
  /// The blocks of a range of elements that begins with one.
  func blocks(of size: Int) -> Range<Int> {
    lowerBound / size..<FourBitCode.blockCount(of: upperBound, blockSize: size)
  }
}

extension NestedScales {
  static func quantize(
    _ scales: [Float], count: Int, into codes: inout Block, absmax: inout [Float]
  ) {
    var bytes = codes.mutableBytes(count)
    var span = absmax.mutableSpan
    quantize(scales.span, count: count, into: &bytes, absmax: &span)
  }

  static func dequantize(
    _ codes: borrowing Block, absmax: [Float], offset: Float, count: Int,
    into scales: inout [Float]
  ) {
    let levels = levels
    var span = scales.mutableSpan
    dequantize(
      codes.bytes(count), levels: levels.span, absmax: absmax.span, offset: offset, count: count,
      into: &span)
  }
}

extension RowInt8 {
  /// Codes some rows of a step; `codes` and `scales` are the whole step's.
  static func quantize(
    _ values: [Float], _ rows: Range<Int>, columns: Int, into codes: inout Block,
    scales: inout [Float]
  ) {
    var bytes = codes.mutableBytes(rows.upperBound * columns)
    var part = bytes._mutatingExtracting(rows.lowerBound * columns..<bytes.byteCount)
    var all = scales.mutableSpan
    var absmax = all._mutatingExtracting(rows)
    quantize(values.span, rows: rows.count, columns: columns, into: &part, absmax: &absmax)
  }

  static func dequantize(
    _ codes: borrowing Block, _ rows: Range<Int>, columns: Int, scales: [Float],
    into values: inout [Float]
  ) {
    let end = rows.upperBound * columns
    var span = values.mutableSpan
    dequantize(
      codes.bytes(end).extracting(rows.lowerBound * columns..<end),
      absmax: scales.span.extracting(rows), rows: rows.count, columns: columns, into: &span)
  }
}

extension GroupInt4 {
  /// Codes a tile of a step, whole groups; `codes`, `scales` and `zeros` are the whole step's.
  static func quantize(
    _ values: [Float], _ tile: Range<Int>, _ scheme: GroupScheme, into codes: inout Block,
    scales: inout [Float], zeros: inout [Float]
  ) {
    var bytes = codes.mutableBytes(byteCount(of: tile.upperBound))
    var part = bytes._mutatingExtracting(byteCount(of: tile.lowerBound)..<bytes.byteCount)
    let groups = tile.blocks(of: scheme.groupSize)
    var allScales = scales.mutableSpan
    var scales = allScales._mutatingExtracting(groups)
    var allZeros = zeros.mutableSpan
    var zeros = allZeros._mutatingExtracting(groups)
    quantize(
      values.span, count: tile.count, groupSize: scheme.groupSize,
      zeros: scheme.zeroRule, scaleDType: scheme.scaleDType, into: &part,
      scales: &scales, zeros: &zeros)
  }

  /// What the codes of a tile stand for: each group is a row of a matrix.
  static func dequantize(
    _ codes: borrowing Block, _ tile: Range<Int>, _ scheme: GroupScheme, scales: [Float],
    shifts: [Float], into values: inout [Float]
  ) {
    var span = values.mutableSpan
    let size = scheme.groupSize
    dequantizeTile(
      codes.bytes(byteCount(of: tile.upperBound)), scales: scales.span, shifts: shifts.span,
      scheme.layout.shift, groupSize: size, row: size, rows: tile.blocks(of: size),
      columns: 0..<size, into: &span)
  }
}
