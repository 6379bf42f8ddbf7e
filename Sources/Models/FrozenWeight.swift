package import Checkpoints
package import Files
package import Quantization
package import Tensors

/// A weight (outputs, inputs) that training leaves as it is, in memory as it lies in the file.
///
/// It is widened to f32 a tile at a time, so that its memory is that of its codes: 2 bytes an
/// element for BF16, about 0.56 for NF4, whose scales are kept in f32, and 0.5 + 8 / group size for
/// group-wise INT4.
package struct FrozenWeight: Sendable {
  /// The rows.
  package let outputs: Int
  /// The columns.
  package let inputs: Int
  private let codes: Codes

  private enum Codes {
    case numbers(DType, Bytes)
    case blocks(FourBitCode, size: Int, Bytes, scales: [Float])
    case rows(Bytes, scales: [Float])
    case groups(GroupCodes)
  }

  /// Reads a weight of numbers.
  ///
  /// - Throws: `unsupported` for other dtypes; `damaged` for other shapes, and where the file is cut
  ///   short; `io`.
  package init(_ tensor: TensorInfo, in source: any TensorSource) throws(PeftoolError) {
    guard tensor.dtype.isComputable else {
      throw PeftoolError(
        .unsupported,
        "is \(tensor.dtype.rawValue), expected F64, F32, F16, BF16, F8_E4M3 or F8_E5M2",
        tensor: tensor.name)
    }
    let rows = tensor.shape.count == 1 ? 1 : tensor.shape.first ?? 1
    outputs = rows
    inputs = rows > 0 ? tensor.elementCount / rows : 0
    codes = .numbers(
      tensor.dtype,
      try Bytes(count: tensor.byteCount) { (bytes) throws(PeftoolError) in
        try source.read(tensor, bytes: 0..<tensor.byteCount, into: &bytes)
      })
  }

  /// Reads a quantized weight.
  ///
  /// - Throws: as `QuantizedWeight.readScales` and `Int4Weight.read`.
  package init(_ weight: QuantizedWeight, in source: any TensorSource) throws(PeftoolError) {
    outputs = weight.shape[0]
    inputs = weight.elementCount / max(1, outputs)
    codes =
      switch weight.form {
      case .blocks(let state, let nested):
        .blocks(
          state.code, size: state.blockSize, try weight.readCodes(from: source),
          scales: try weight.readScales(of: state, nested, from: source))
      case .rows:
        .rows(
          try weight.readCodes(from: source), scales: try weight.readRowScales(from: source))
      case .groups(let weight): .groups(try weight.read(from: source))
      }
  }

  /// The weight's values coded in 4 bits, in blocks of `size`, as `peftool quantize` would and
  /// decoded as it would be read back.
  ///
  /// With double quantization the scales are coded too, and what they decode to is kept.
  package func quantized(
    _ code: FourBitCode, blockSize size: Int, isNested: Bool
  ) throws(PeftoolError) -> FrozenWeight {
    let count = outputs * inputs
    let blockCount = FourBitCode.blockCount(of: count, blockSize: size)
    var scales = [Float](repeating: 0, count: blockCount)
    let flattened = FrozenWeight(outputs: 1, inputs: count, codes: codes)
    // A part of whole blocks at a time.
    let part = max(size, (1 << 14) / size * size)
    let row = Rows(1, part)
    let packed = try Bytes(count: FourBitCode.byteCount(of: count)) {
      (bytes) throws(PeftoolError) in
      var start = 0
      while start < count {
        let end = min(count, start + part)
        flattened.widen(rows: 0..<1, columns: start..<end, into: row.columns(0..<end - start))
        row.withSpan { values in
          var codes = bytes._mutatingExtracting(
            start / 2..<FourBitCode.byteCount(of: end))
          var absmax = scales.mutableSpan
          var own = absmax._mutatingExtracting(
            start / size..<FourBitCode.blockCount(of: end, blockSize: size))
          code.quantize(
            values.span, count: end - start, blockSize: size, into: &codes, absmax: &own)
        }
        start = end
      }
    }
    if isNested, blockCount > 0 { scales = NestedScales.rounded(scales) }
    return FrozenWeight(
      outputs: outputs, inputs: inputs, codes: .blocks(code, size: size, packed, scales: scales))
  }

  private init(outputs: Int, inputs: Int, codes: Codes) {
    self.outputs = outputs
    self.inputs = inputs
    self.codes = codes
  }

  /// The bytes that it takes.
  package var byteCount: Int {
    switch codes {
    case .numbers(_, let bytes): bytes.count
    case .blocks(_, _, let bytes, let scales), .rows(let bytes, let scales):
      bytes.count + scales.count * 4
    case .groups(let groups): groups.byteCount
    }
  }

  /// The bytes that so many elements take in NF4, in the blocks of 64 of `quantize`.
  static func byteCount(ofNF4 count: Int) -> Int {
    FourBitCode.byteCount(of: count) + 4 * FourBitCode.blockCount(of: count, blockSize: 64)
  }

  /// Whether it is coded in few bits.
  package var isQuantized: Bool {
    if case .numbers = codes { false } else { true }
  }

  /// Whether its groups have zero points, and no offsets to which a change could be added.
  package var hasZeroPoints: Bool {
    if case .groups(let groups) = codes { groups.shift != .offsets } else { false }
  }

  /// The inputs that share a scale, where the weight is in group-wise INT4.
  ///
  /// - Throws: `unsupported` where the groups are not of one size, or not of inputs that follow each
  ///   other: their means are none that a column of QA-LoRA's A could stand for.
  package var groupSize: Int? {
    get throws(PeftoolError) {
      guard case .groups(let groups) = codes else { return nil }
      guard groups.groupOfInput == nil else {
        throw PeftoolError(
          .unsupported, "has its inputs in groups of another order (desc_act), which have no mean")
      }
      guard inputs % groups.groupSize == 0 else {
        throw PeftoolError(
          .unsupported, "has \(inputs) inputs, which groups of \(groups.groupSize) do not divide")
      }
      return groups.groupSize
    }
  }

  /// Some columns of some rows, in f32, as rows without gaps: BF16, F16 and codes exactly as they
  /// decode.
  func widen(rows: Range<Int>, columns: Range<Int>, into tile: Rows) {
    precondition(tile.count == rows.count && tile.columns == columns.count, "a tile of that shape")
    precondition(rows.lowerBound >= 0 && rows.upperBound <= outputs, "rows that there are")
    precondition(columns.lowerBound >= 0 && columns.upperBound <= inputs, "likewise columns")
    let first = rows.lowerBound * inputs + columns.lowerBound
    tile.withSpan { tile in
      switch codes {
      case .numbers(let dtype, let bytes):
        dtype.widenTile(
          bytes.span, first: first, row: inputs, rows: rows.count, columns: columns.count,
          into: &tile)
      case .blocks(let code, let size, let bytes, let scales):
        code.dequantizeTile(
          bytes.span, absmax: scales.span, blockSize: size, first: first, row: inputs,
          rows: rows.count, columns: columns.count, into: &tile)
      case .rows(let bytes, let scales):
        RowInt8.dequantizeTile(
          bytes.span, absmax: scales.span.extracting(rows), first: first, row: inputs,
          rows: rows.count, columns: columns.count, into: &tile)
      case .groups(let groups): groups.dequantize(rows: rows, columns: columns, into: &tile)
      }
    }
  }

  /// y = x·Wᵀ for some rows of W, all columns: for few rows of x, of which each is read with the
  /// weights in the cache.
  ///
  /// Shapes: x (N, inputs), y (N, rows). What is multiplied as it is read is numbers, and 4-bit
  /// codes in whole groups of 16; all else is widened first, into `tile`, which has room for a row.
  func multiply(rows: Range<Int>, by x: Rows, into y: Rows, tile: Rows) {
    precondition(x.columns == inputs && y.count == x.count && y.columns == rows.count)
    precondition(rows.lowerBound >= 0 && rows.upperBound <= outputs, "rows that there are")
    if hasFusedProducts {
      for place in 0..<x.count {
        x.withSpan(row: place) { x in
          y.withSpan(row: place) { multiply(rows: rows, by: x.span, into: &$0) }
        }
      }
      return
    }
    precondition(tile.columns >= inputs, "room for a row")
    for part in rows.cut(into: max(1, min(Self.widenedCount, tile.columns) / max(1, inputs))) {
      let tile = tile.reshaped(part.count, inputs)
      widen(rows: part, columns: 0..<inputs, into: tile)
      for place in 0..<x.count {
        let first = part.lowerBound - rows.lowerBound
        tile.multiplyRows(
          by: x.rows(place..<place + 1),
          into: y.rows(place..<place + 1).columns(first..<first + part.count))
      }
    }
  }

  /// Whether rows are multiplied as they are read.
  private var hasFusedProducts: Bool {
    switch codes {
    case .numbers: true
    case .blocks(_, let size, _, _): inputs % 16 == 0 && size % 16 == 0
    case .rows, .groups: false
    }
  }

  /// The products of some rows with one vector.
  private func multiply(
    rows: Range<Int>, by x: Span<Float>, into y: inout MutableSpan<Float>
  ) {
    let first = rows.lowerBound * inputs
    switch codes {
    case .numbers(let dtype, let bytes):
      dtype.multiplyRows(bytes.span, first: first, rows: rows.count, by: x, into: &y)
    case .blocks(let code, let size, let bytes, let scales):
      code.multiplyRows(
        bytes.span, absmax: scales.span, blockSize: size, first: first, rows: rows.count, by: x,
        into: &y)
    case .rows, .groups: preconditionFailure("these are widened first")
    }
  }

  /// The floats that are widened at a time: they stay in the first cache.
  private static let widenedCount = 4096

  /// The length of each row: a sum of squares in f64, its root rounded to f32.
  package var rowNorms: [Float] {
    let row = Rows(1, inputs)
    return (0..<outputs).map { place in
      widen(rows: place..<place + 1, columns: 0..<inputs, into: row)
      return row.withSpan {
        Float(Float.sumOfSquares($0.span, at: 0, count: $0.count).squareRoot())
      }
    }
  }

  /// All of it, in f32.
  package var values: [Float] {
    let rows = Rows(outputs, inputs)
    widen(rows: 0..<outputs, columns: 0..<inputs, into: rows)
    return rows.values
  }
}
