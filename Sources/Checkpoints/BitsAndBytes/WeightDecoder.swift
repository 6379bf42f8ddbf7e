import Files
import Quantization
import Tensors

/// What the codes of a weight stand for, by ranges of its elements.
struct WeightDecoder {
  private let weight: QuantizedWeight
  private let source: any TensorSource
  /// Weights in groups that lie by columns.
  private let groups: Recent<GroupCodes>

  /// Elements that stay in a core's own cache; a multiple of every block size.
  private static let tileElementCount = 1 << 14

  init(
    _ weight: QuantizedWeight, in source: any TensorSource,
    groups: Recent<GroupCodes> = Recent()
  ) {
    self.weight = weight
    self.source = source
    self.groups = groups
  }

  /// Writes elements as values of `dtype`.
  ///
  /// - Throws: `io`; `damaged` where the file is cut short, or what stands there is not finite in
  ///   `dtype`.
  func decode(
    _ elements: Range<Int>, to dtype: DType, into bytes: inout MutableRawSpan
  ) throws(PeftoolError) {
    guard !elements.isEmpty else { return }
    switch weight.form {
    case .blocks(let state, let nested):
      try decode(elements, state, nested, to: dtype, into: &bytes)
    case .rows:
      try decodeRows(elements, to: dtype, into: &bytes)
    case .groups(let weight):
      try decode(elements, of: weight, to: dtype, into: &bytes)
    }
  }

  private func decode(
    _ elements: Range<Int>, of weight: Int4Weight, to dtype: DType,
    into bytes: inout MutableRawSpan
  ) throws(PeftoolError) {
    let columns = weight.inputs
    let rows = elements.lowerBound / columns..<(elements.upperBound - 1) / columns + 1
    let first = weight.liesByRows ? rows.lowerBound : 0
    let codes =
      try weight.liesByRows
      ? weight.read(rows: rows, from: source)
      : groups.value(of: weight.codes.name) { () throws(PeftoolError) in
        try weight.read(from: source)
      }
    var values = [Float](repeating: 0, count: Self.tileElementCount)
    for row in rows {
      let part = (row * columns..<(row + 1) * columns).clamped(to: elements)
      for tile in part.cut(into: Self.tileElementCount) {
        var span = values.mutableSpan
        let start = tile.lowerBound - row * columns
        codes.dequantize(
          rows: row - first..<row - first + 1, columns: start..<start + tile.count, into: &span)
        Self.narrow(values, tile, elements, to: dtype, into: &bytes)
      }
    }
    guard dtype.nonfiniteCount(bytes.bytes, count: elements.count) == 0 else {
      throw PeftoolError(
        .damaged, "has scales whose values are not finite as \(dtype.rawValue)",
        tensor: weight.scales.name)
    }
  }

  private func decode(
    _ elements: Range<Int>, _ state: FourBitState, _ nested: QuantizedWeight.Nested?,
    to dtype: DType, into bytes: inout MutableRawSpan
  ) throws(PeftoolError) {
    let blocks =
      elements.lowerBound
      / state.blockSize..<FourBitCode.blockCount(
        of: elements.upperBound, blockSize: state.blockSize)
    let scales = try checkedScales(blocks, nested, dtype)
    let first = blocks.lowerBound * state.blockSize
    let codes = try read(
      first / 2..<FourBitCode.byteCount(of: elements.upperBound), of: weight.codes)
    var values = [Float](repeating: 0, count: Self.tileElementCount)
    for tile in (first..<elements.upperBound).cut(into: Self.tileElementCount) {
      let codeBytes =
        (tile.lowerBound - first) / 2..<FourBitCode.byteCount(of: tile.upperBound - first)
      let firstScale = (tile.lowerBound - first) / state.blockSize
      var span = values.mutableSpan
      state.code.dequantize(
        codes.bytes(codeBytes.upperBound).extracting(codeBytes),
        absmax: scales.span.extracting(firstScale..<scales.count), count: tile.count,
        blockSize: state.blockSize, into: &span)
      Self.narrow(values, tile, elements, to: dtype, into: &bytes)
    }
  }

  /// The scales of some blocks, whose values are finite in `dtype`.
  ///
  /// - Throws: `io`, `damaged`.
  func checkedScales(
    _ blocks: Range<Int>, _ nested: QuantizedWeight.Nested?, _ dtype: DType = .f32
  ) throws(PeftoolError) -> [Float] {
    let scales = try scales(blocks, nested)
    try Self.check(scales, from: blocks.lowerBound, of: weight.scales, dtype)
    return scales
  }

  /// The scales of some rows of 8 bits, whose values are finite in `dtype`.
  ///
  /// - Throws: `io`, `damaged`.
  func checkedRowScales(_ rows: Range<Int>, _ dtype: DType) throws(PeftoolError) -> [Float] {
    let scales = try numbers(rows, of: weight.scales)
    // A code times a scale is a float before it is divided.
    try Self.check(
      scales, from: rows.lowerBound, of: weight.scales, dtype,
      limit: .greatestFiniteMagnitude / 128)
    return scales
  }

  /// The scales of some blocks.
  private func scales(
    _ blocks: Range<Int>, _ nested: QuantizedWeight.Nested?
  ) throws(PeftoolError) -> [Float] {
    guard let nested else { return try numbers(blocks, of: weight.scales) }
    let size = NestedScales.blockSize
    let groups =
      blocks.lowerBound
      / size..<FourBitCode.blockCount(of: blocks.upperBound, blockSize: size)
    let first = groups.lowerBound * size
    let absmax = try numbers(groups, of: nested.absmax)
    try Self.check(absmax, from: groups.lowerBound, of: nested.absmax, .f32)
    let codes = try read(first..<blocks.upperBound, of: weight.scales)
    let count = blocks.upperBound - first
    var scales = [Float](repeating: 0, count: count)
    let levels = nested.levels
    var span = scales.mutableSpan
    NestedScales.dequantize(
      codes.bytes(count), levels: levels.span, absmax: absmax.span, offset: nested.offset,
      count: count, into: &span)
    return Array(scales[(blocks.lowerBound - first)...])
  }

  private func decodeRows(
    _ elements: Range<Int>, to dtype: DType, into bytes: inout MutableRawSpan
  ) throws(PeftoolError) {
    let columns = weight.shape[1]
    let rows = elements.lowerBound / columns..<(elements.upperBound - 1) / columns + 1
    let scales = try checkedRowScales(rows, dtype)
    let codes = try read(elements, of: weight.codes)
    var values = [Float](repeating: 0, count: Self.tileElementCount)
    for (row, scale) in zip(rows, scales) {
      let part = (row * columns..<(row + 1) * columns).clamped(to: elements)
      for tile in part.cut(into: Self.tileElementCount) {
        let start = tile.lowerBound - elements.lowerBound
        var span = values.mutableSpan
        RowInt8.dequantize(
          codes.bytes(start + tile.count).extracting(start..<start + tile.count),
          absmax: [scale].span, rows: 1, columns: tile.count, into: &span)
        Self.narrow(values, tile, elements, to: dtype, into: &bytes)
        // bitsandbytes writes no code of -128, which stands for more than the scale.
        guard Double(scale.magnitude) * 128 / 127 > dtype.largestFinite ?? .infinity else {
          continue
        }
        let size = dtype.bitCount / 8
        let written = bytes.bytes.extracting(start * size..<(start + tile.count) * size)
        guard dtype.nonfiniteCount(written, count: tile.count) == 0 else {
          throw PeftoolError(
            .damaged,
            "scale \(row) is \(scale): a code of -128 is not finite as \(dtype.rawValue)",
            tensor: weight.scales.name)
        }
      }
    }
  }

  /// Refuses scales that make values NaN or infinite.
  private static func check(
    _ scales: [Float], from first: Int, of tensor: TensorInfo, _ dtype: DType,
    limit: Float = .greatestFiniteMagnitude
  ) throws(PeftoolError) {
    let limit = min(Double(limit), dtype.largestFinite ?? .infinity)
    // NaN is not within the limit either.
    guard let place = scales.firstIndex(where: { !(Double($0.magnitude) <= limit) }) else { return }
    throw PeftoolError(
      .damaged,
      "scale \(first + place) is \(scales[place]): its values are not finite as \(dtype.rawValue)",
      tensor: tensor.name)
  }

  /// bytes ← those of a tile's values that are among the elements.
  private static func narrow(
    _ values: [Float], _ tile: Range<Int>, _ elements: Range<Int>, to dtype: DType,
    into bytes: inout MutableRawSpan
  ) {
    let wanted = tile.clamped(to: elements)
    let size = dtype.bitCount / 8
    var part = bytes._mutatingExtracting(
      (wanted.lowerBound - elements.lowerBound) * size..<(wanted.upperBound - elements.lowerBound)
        * size)
    let skipped = wanted.lowerBound - tile.lowerBound
    Float.narrow(
      values.span.extracting(skipped..<skipped + wanted.count), dtype, into: &part,
      count: wanted.count)
  }

  private func read(
    _ range: Range<Int>, of tensor: TensorInfo
  ) throws(PeftoolError) -> Block {
    var block = Block(byteCount: range.count)
    var bytes = block.mutableBytes(range.count)
    try source.read(tensor, bytes: range, into: &bytes)
    return block
  }

  /// F32 elements of a tensor.
  private func numbers(
    _ range: Range<Int>, of tensor: TensorInfo
  ) throws(PeftoolError) -> [Float] {
    let block = try read(range.lowerBound * 4..<range.upperBound * 4, of: tensor)
    var values = [Float](repeating: 0, count: range.count)
    var span = values.mutableSpan
    Float.widen(block.bytes(range.count * 4), .f32, into: &span, count: range.count)
    return values
  }
}
