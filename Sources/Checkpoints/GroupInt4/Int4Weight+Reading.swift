package import Files
package import Quantization
import Tensors

// Codes, scales and offsets of a weight, row by row whatever the layout.
extension Int4Weight {
  /// Whether some rows can be read without the others.
  var liesByRows: Bool { layout == .mlx }

  /// All of the weight.
  ///
  /// Memory: codes and scales, of a layout by columns or halves twice meanwhile.
  /// - Throws: `io`; `damaged` where the file is cut short, or a scale or offset is not finite.
  package func read(from source: any TensorSource) throws(PeftoolError) -> GroupCodes {
    try read(rows: 0..<outputs, from: source)
  }

  /// Some rows of it; of a layout by columns or halves all.
  ///
  /// - Throws: as `read(from:)`.
  func read(
    rows: Range<Int>, from source: any TensorSource
  ) throws(PeftoolError) -> GroupCodes {
    precondition(liesByRows || rows == 0..<outputs, "rows that lie together")
    let groups = GroupInt4.groupCount(of: inputs, groupSize: groupSize)
    let scales = try numbers(of: self.scales, rows, groups, in: source)
    let shifts =
      try layout.hasGroupsByRows
      ? numbers(of: self.shifts, rows, groups, in: source) : zeros(groups, in: source)
    try checkFinite(scales, of: self.scales)
    try checkFinite(shifts, of: self.shifts)
    let rowByteCount = inputs / 2
    let codes = try Bytes(count: rows.count * rowByteCount) { (bytes) throws(PeftoolError) in
      guard !liesByRows else {
        try source.read(
          self.codes, bytes: rows.lowerBound * rowByteCount..<rows.upperBound * rowByteCount,
          into: &bytes)
        return
      }
      var words = Block(byteCount: bytes.byteCount)
      var span = words.mutableBytes(bytes.byteCount)
      try source.read(self.codes, bytes: 0..<bytes.byteCount, into: &span)
      let read = words.bytes(bytes.byteCount)
      switch layout {
      case .mlx: preconditionFailure("rows are read as they lie")
      case .awq: GroupInt4.unpackAWQ(read, rows: outputs, columns: inputs, into: &bytes)
      case .gptq, .gptqV2:
        // A word has eight inputs of one output, the first lowest, as a row of codes has.
        Transposition.transpose(
          read, rows: inputs / 8, columns: outputs, elementByteCount: 4, into: &bytes)
      case .hqq: GroupInt4.unpackHalves(read, into: &bytes)
      }
    }
    return GroupCodes(
      outputs: rows.count, inputs: inputs, groupSize: groupSize, codes: codes, scales: scales,
      shifts: shifts, layout.shift, groupOfInput: groupOfInput)
  }

  /// Whether F16 holds all its scales and offsets, a zero point's being -scale · zero.
  ///
  /// - Throws: as `read(from:)`.
  package func fitsF16(in source: any TensorSource) throws(PeftoolError) -> Bool {
    if layout == .mlx, self.scales.dtype == .f16 { return true }
    let groups = GroupInt4.groupCount(of: inputs, groupSize: groupSize)
    let scales = try numbers(of: self.scales, 0..<outputs, groups, in: source)
    let shifts =
      try layout.hasGroupsByRows
      ? numbers(of: self.shifts, 0..<outputs, groups, in: source) : zeros(groups, in: source)
    let offsets = layout.shift == .offsets ? shifts : zip(scales, shifts).map { 0 - $0 * $1 }
    return (scales + offsets).isExact(in: .f16)
  }

  /// Scales or offsets in f32, (rows, groups).
  private func numbers(
    of tensor: TensorInfo, _ rows: Range<Int>, _ groups: Int, in source: any TensorSource
  ) throws(PeftoolError) -> [Float] {
    let count = rows.count * groups
    let size = tensor.dtype.bitCount / 8
    let first = rows.lowerBound * groups
    var block = Block(byteCount: count * size)
    var bytes = block.mutableBytes(count * size)
    try source.read(tensor, bytes: first * size..<(first + count) * size, into: &bytes)
    var values = [Float](repeating: 0, count: count)
    var span = values.mutableSpan
    Float.widen(block.bytes(count * size), tensor.dtype, into: &span, count: count)
    return layout.hasGroupsByRows ? values : Self.transposed(values, rows: groups, columns: outputs)
  }

  /// Zero points, (outputs, groups).
  private func zeros(
    _ groups: Int, in source: any TensorSource
  ) throws(PeftoolError) -> [Float] {
    let count = outputs * groups
    var words = Block(byteCount: count / 2)
    var bytes = words.mutableBytes(count / 2)
    try source.read(shifts, bytes: 0..<count / 2, into: &bytes)
    var values = [Float](repeating: 0, count: count)
    var span = values.mutableSpan
    GroupInt4.unpackNibbles(
      words.bytes(count / 2), layout.nibbleOrder, less: layout.zeroOffset, into: &span)
    return Self.transposed(values, rows: groups, columns: outputs)
  }

  private static func transposed(_ values: [Float], rows: Int, columns: Int) -> [Float] {
    var turned = values
    var span = turned.mutableSpan
    // Any four bytes are a Float.
    var bytes = unsafe span.mutableBytes
    Transposition.transpose(
      unsafe values.span.bytes, rows: rows, columns: columns, elementByteCount: 4, into: &bytes)
    return turned
  }

  private func checkFinite(
    _ values: [Float], of tensor: TensorInfo
  ) throws(PeftoolError) {
    guard let bad = values.first(where: { !$0.isFinite }) else { return }
    throw PeftoolError(.damaged, "has \(bad), expected finite numbers", tensor: tensor.name)
  }
}

extension [Float] {
  /// Whether a narrower type holds each of them.
  fileprivate func isExact(in dtype: DType) -> Bool {
    var block = Block(byteCount: count * dtype.bitCount / 8)
    var bytes = block.mutableBytes(count * dtype.bitCount / 8)
    Float.narrow(span, dtype, into: &bytes, count: count)
    var rounded = self
    var values = rounded.mutableSpan
    Float.widen(block.bytes(count * dtype.bitCount / 8), dtype, into: &values, count: count)
    return rounded == self
  }
}
