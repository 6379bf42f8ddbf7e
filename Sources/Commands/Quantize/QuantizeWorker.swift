import Adapters
import Checkpoints
import Files
import Quantization
import Tensors

/// The buffers of one thread, and what it does with a step's elements of a weight.
///
/// Memory: a step's elements as they are read and as codes, its scales, and a few tiles of 16,384
/// numbers (or of one row, for LLM.int8, where that is longer).
struct QuantizeWorker: ~Copyable {
  /// Elements that stay in a core's own cache; a multiple of every block size.
  static let tileElementCount = 1 << 14

  /// Where the tensors of a weight go.
  struct Target: Sendable {
    /// A file and the offset of the tensor's first byte.
    struct Place: Sendable {
      let file: OutputFile
      let offset: Int
    }

    let codes: Place
    let scales: Place
    let nested: Place?
  }

  private let plan: QuantizePlan
  private let isCompared: Bool
  private var reader = WeightReader()
  private var codes = Block(byteCount: 0)
  private var scaleBytes = Block(byteCount: 0)
  private var narrowed = Block(byteCount: 0)
  private var values: [Float] = []
  private var restored: [Float] = []
  private var scales: [Float] = []
  private var nestedScales: [Float] = []

  /// A worker; with `isCompared` it measures what quantization loses.
  init(_ plan: QuantizePlan, isCompared: Bool) {
    self.plan = plan
    self.isCompared = isCompared
  }

  /// The scales of elements that begin and end with blocks, for their mean.
  mutating func absmax(
    _ elements: Range<Int>, of place: Int, blockSize: Int
  ) throws(PeftoolError) -> [Float] {
    let weight = plan.weights[place]
    try reader.read(elements, of: weight)
    let dtype = weight.tensor.dtype
    let count = FourBitCode.blockCount(of: elements.count, blockSize: blockSize)
    var absmax = [Float](repeating: 0, count: count)
    var span = absmax.mutableSpan
    FourBitCode.absmax(
      reader.bytes(0..<elements.count * dtype.bitCount / 8), dtype, count: elements.count,
      blockSize: blockSize, into: &span)
    // The largest magnitude is rounded as its element is: rounding keeps the order.
    Self.round(&absmax, count: count, from: dtype, to: plan.dtype, &narrowed)
    // Rounding may have made a tiny one 0, for which a short last block has 1e-38.
    if elements.count % blockSize != 0, absmax[count - 1] < 1e-38 { absmax[count - 1] = 1e-38 }
    try check(
      absmax, count: count, of: weight,
      firstRow: { block in
        (elements.lowerBound + block * blockSize) / weight.columnCount
      })
    return absmax
  }

  /// Codes elements in 4 bits and writes them with their scales.
  mutating func quantize(
    _ elements: Range<Int>, of place: Int, _ code: FourBitCode, blockSize: Int,
    offset: Float?, to target: Target
  ) throws(PeftoolError) -> ElementComparison {
    let weight = plan.weights[place]
    let count = elements.count
    let blockCount = FourBitCode.blockCount(of: count, blockSize: blockSize)
    let byteCount = FourBitCode.byteCount(of: count)
    try reader.read(elements, of: weight)
    if codes.byteCount < byteCount { codes = Block(byteCount: byteCount) }
    if scales.count < blockCount { scales = Array(repeating: 0, count: blockCount) }
    for tile in Self.tiles(count) {
      widen(tile, of: weight)
      code.quantize(values, tile, blockSize: blockSize, into: &codes, scales: &scales)
    }
    try check(
      scales, count: blockCount, of: weight,
      firstRow: { block in
        (elements.lowerBound + block * blockSize) / weight.columnCount
      })
    try target.codes.file.write(
      codes.bytes(byteCount), at: target.codes.offset + elements.lowerBound / 2)
    let firstBlock = elements.lowerBound / blockSize
    if let offset, let nested = target.nested {
      try writeNested(blockCount, firstBlock, offset, target.scales, nested)
    } else {
      try write(scales, blockCount, at: firstBlock, to: target.scales)
    }
    var comparison = ElementComparison()
    guard isCompared else { return comparison }
    if restored.count < Self.tileElementCount {
      restored = Array(repeating: 0, count: Self.tileElementCount)
    }
    for tile in Self.tiles(count) {
      widen(tile, of: weight)
      code.dequantize(codes, tile, blockSize: blockSize, scales: scales, into: &restored)
      comparison.add(
        ElementComparison(
          restored.span, values.span, count: tile.count,
          within: .init(absolute: 0, relative: 0)))
    }
    return comparison
  }

  /// Writes scales in 8 bits, and leaves in `scales` what they stand for then.
  private mutating func writeNested(
    _ count: Int, _ first: Int, _ offset: Float, _ target: Target.Place, _ nested: Target.Place
  ) throws(PeftoolError) {
    let nestedCount = FourBitCode.blockCount(of: count, blockSize: NestedScales.blockSize)
    for place in 0..<count { scales[place] -= offset }
    if scaleBytes.byteCount < count { scaleBytes = Block(byteCount: count) }
    if nestedScales.count < nestedCount {
      nestedScales = Array(repeating: 0, count: nestedCount)
    }
    NestedScales.quantize(scales, count: count, into: &scaleBytes, absmax: &nestedScales)
    try target.file.write(scaleBytes.bytes(count), at: target.offset + first)
    try write(nestedScales, nestedCount, at: first / NestedScales.blockSize, to: nested)
    guard isCompared else { return }
    NestedScales.dequantize(
      scaleBytes, absmax: nestedScales, offset: offset, count: count, into: &scales)
  }

  /// Codes rows in 8 bits and writes them with their scales.
  mutating func quantize(
    rows: Range<Int>, of place: Int, to target: Target
  ) throws(PeftoolError) -> ElementComparison {
    let weight = plan.weights[place]
    let columns = weight.columnCount
    let byteCount = rows.count * columns
    try reader.read(rows.lowerBound * columns..<rows.upperBound * columns, of: weight)
    if codes.byteCount < byteCount { codes = Block(byteCount: byteCount) }
    if scales.count < rows.count { scales = Array(repeating: 0, count: rows.count) }
    var comparison = ElementComparison()
    let tileRowCount = max(1, Self.tileElementCount / columns)
    for first in stride(from: 0, to: rows.count, by: tileRowCount) {
      let tileRows = first..<min(first + tileRowCount, rows.count)
      let tile = tileRows.lowerBound * columns..<tileRows.upperBound * columns
      widen(tile, of: weight)
      // bitsandbytes quantizes what F16 makes of a weight.
      Self.round(&values, count: tile.count, from: plan.dtype, to: .f16, &narrowed)
      RowInt8.quantize(values, tileRows, columns: columns, into: &codes, scales: &scales)
      guard isCompared else { continue }
      widen(tile, of: weight)
      if restored.count < tile.count { restored = Array(repeating: 0, count: tile.count) }
      RowInt8.dequantize(codes, tileRows, columns: columns, scales: scales, into: &restored)
      comparison.add(
        ElementComparison(
          restored.span, values.span, count: tile.count,
          within: .init(absolute: 0, relative: 0)))
    }
    try check(scales, count: rows.count, of: weight, firstRow: { rows.lowerBound + $0 })
    try target.codes.file.write(
      codes.bytes(byteCount), at: target.codes.offset + rows.lowerBound * columns)
    try write(scales, rows.count, at: rows.lowerBound, to: target.scales)
    return comparison
  }

  /// Copies bytes of a tensor that lies in another order in its file.
  mutating func gather(
    _ range: Range<Int>, of tensor: StoredTensor, in file: OutputFile, at offset: Int
  ) throws(PeftoolError) {
    if codes.byteCount < range.count { codes = Block(byteCount: range.count) }
    try Self.read(range, of: tensor, into: &codes)
    try file.write(codes.bytes(range.count), at: offset)
  }

  private static func read(
    _ range: Range<Int>, of tensor: StoredTensor, into block: inout Block
  ) throws(PeftoolError) {
    var bytes = block.mutableBytes(range.count)
    do throws(PeftoolError) {
      try tensor.source.read(tensor.info, bytes: range, into: &bytes)
    } catch {
      throw tensor.at(error)
    }
  }

  /// Elements of one type in another; every value of a type goes through f64 unharmed.
  private static func convert(
    _ from: borrowing Block, _ fromDType: DType, into to: inout Block, _ dtype: DType, count: Int
  ) {
    var values = [Double](repeating: 0, count: count)
    var span = values.mutableSpan
    Double.widen(
      from.bytes(count * fromDType.bitCount / 8), fromDType, into: &span, count: count)
    var bytes = to.mutableBytes(count * dtype.bitCount / 8)
    Double.narrow(values.span, dtype, into: &bytes, count: count)
  }

  /// Copies elements of a tensor into another type.
  mutating func convert(
    _ elements: Range<Int>, of tensor: StoredTensor, to dtype: DType, in file: OutputFile,
    at offset: Int
  ) throws(PeftoolError) {
    let size = tensor.dtype.bitCount / 8
    if codes.byteCount < elements.count * size {
      codes = Block(byteCount: elements.count * size)
    }
    try Self.read(
      elements.lowerBound * size..<elements.upperBound * size, of: tensor, into: &codes)
    let byteCount = elements.count * dtype.bitCount / 8
    if narrowed.byteCount < byteCount { narrowed = Block(byteCount: byteCount) }
    Self.convert(codes, tensor.dtype, into: &narrowed, dtype, count: elements.count)
    try file.write(narrowed.bytes(byteCount), at: offset)
  }

  /// values ← a tile of what was read, in the type in which transformers loads it.
  private mutating func widen(_ tile: Range<Int>, of weight: LinearModules.Weight) {
    if values.count < tile.count {
      values = Array(repeating: 0, count: max(tile.count, Self.tileElementCount))
    }
    Self.widen(reader, tile, weight.tensor.dtype, into: &values)
    Self.round(&values, count: tile.count, from: weight.tensor.dtype, to: plan.dtype, &narrowed)
  }

  private static func widen(
    _ reader: borrowing WeightReader, _ tile: Range<Int>, _ dtype: DType,
    into values: inout [Float]
  ) {
    let size = dtype.bitCount / 8
    var span = values.mutableSpan
    Float.widen(
      reader.bytes(tile.lowerBound * size..<tile.upperBound * size), dtype, into: &span,
      count: tile.count)
  }

  /// Rounds values of one type to another; nothing where that holds them all.
  private static func round(
    _ values: inout [Float], count: Int, from: DType, to dtype: DType, _ narrowed: inout Block
  ) {
    guard from != dtype, dtype != .f32 else { return }
    let byteCount = count * dtype.bitCount / 8
    if narrowed.byteCount < byteCount { narrowed = Block(byteCount: byteCount) }
    var bytes = narrowed.mutableBytes(byteCount)
    Float.narrow(values.span, dtype, into: &bytes, count: count)
    var span = values.mutableSpan
    Float.widen(narrowed.bytes(byteCount), dtype, into: &span, count: count)
  }

  private func write(
    _ scales: [Float], _ count: Int, at first: Int, to place: Target.Place
  ) throws(PeftoolError) {
    // A Float lies in memory as F32 in a file, on the little-endian machines that peftool runs on.
    let span = scales.span.extracting(0..<count)
    try unsafe place.file.write(span.bytes, at: place.offset + first * 4)
  }

  /// Refuses scales that are NaN or infinite: their blocks have such an element.
  private func check(
    _ scales: [Float], count: Int, of weight: LinearModules.Weight, firstRow: (Int) -> Int
  ) throws(PeftoolError) {
    guard let bad = scales[..<count].firstIndex(where: { !$0.isFinite }) else { return }
    let what =
      plan.options.scheme == .rows || plan.dtype == .f16
      ? "NaN, infinity or a magnitude above 65504" : "NaN or infinity"
    throw weight.tensor.at(
      PeftoolError(
        .unsupported,
        "has \(what) near row \(firstRow(bad)), which no code stands for"))
  }

  private static func tiles(_ count: Int) -> [Range<Int>] {
    stride(from: 0, to: count, by: tileElementCount).map {
      $0..<min($0 + tileElementCount, count)
    }
  }
}
