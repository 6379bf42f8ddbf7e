import Adapters
import Checkpoints
import Files
import Quantization
import Tensors

/// The buffers of one thread, and what a step's elements of a weight become.
///
/// A step begins and ends with blocks, nested ones too, or with rows for LLM.int8 and for groups.
///
/// Memory: a step's elements as they are read and as codes, its scales, and a few tiles of 16,384
/// numbers (or of one row, for LLM.int8, where that is longer).
struct WeightQuantizer: ~Copyable {
  /// Elements that stay in a core's own cache; a multiple of every block size.
  static let tileElementCount = 1 << 14

  private var reader = WeightReader()
  private var codes = Block(byteCount: 0)
  private var scaleCodes = Block(byteCount: 0)
  private var narrowed = Block(byteCount: 0)
  private var values: [Float] = []
  private var restored: [Float] = []
  private var scales: [Float] = []
  private var nestedScales: [Float] = []
  /// The offsets or zero points of groups.
  private var shifts: [Float] = []

  /// The scales of elements alone, for their mean.
  ///
  /// - Throws: `unsupported` where a scale is not finite; `io`, `damaged`.
  mutating func absmax(
    _ elements: Range<Int>, of weight: QuantizePlan.Weight, blockSize: Int
  ) throws(PeftoolError) -> [Float] {
    try reader.read(elements, of: weight.linear)
    let dtype = weight.tensor.dtype
    let count = FourBitCode.blockCount(of: elements.count, blockSize: blockSize)
    var absmax = [Float](repeating: 0, count: count)
    var span = absmax.mutableSpan
    FourBitCode.absmax(
      reader.bytes(0..<elements.count * dtype.bitCount / 8), dtype, count: elements.count,
      blockSize: blockSize, into: &span)
    // The largest magnitude is rounded as its element is: rounding keeps the order.
    Self.round(&absmax, count: count, from: dtype, to: weight.loadDType, &narrowed)
    // Rounding may have made a tiny one 0, for which a short last block has 1e-38.
    if elements.count % blockSize != 0, absmax[count - 1] < 1e-38 { absmax[count - 1] = 1e-38 }
    try Self.check(absmax, count: count, of: weight, elements)
    return absmax
  }

  /// Reads and codes elements.
  ///
  /// - Parameter offset: what the scales are taken less of, in double quantization.
  /// - Throws: as `absmax`.
  mutating func encode(
    _ elements: Range<Int>, of weight: QuantizePlan.Weight, offset: Float?
  ) throws(PeftoolError) {
    try reader.read(elements, of: weight.linear)
    let scaleCount = weight.scaleCount(of: elements.count)
    codes.reserve(weight.codeByteCount(of: elements.count))
    scales.reserve(scaleCount)
    if case .groups = weight.scheme { shifts.reserve(scaleCount) }
    for tile in weight.tiles(of: elements.count) {
      widen(tile, of: weight)
      switch weight.scheme {
      case .blocks(let code, let blockSize, _):
        code.quantize(values, tile, blockSize: blockSize, into: &codes, scales: &scales)
      case .rows:
        // bitsandbytes quantizes what F16 makes of a weight.
        Self.round(&values, count: tile.count, from: weight.loadDType, to: .f16, &narrowed)
        let rows = tile.lowerBound / weight.columnCount..<tile.upperBound / weight.columnCount
        RowInt8.quantize(
          values, rows, columns: weight.columnCount, into: &codes, scales: &scales)
      case .groups(let scheme):
        GroupInt4.quantize(
          values, tile, scheme, into: &codes, scales: &scales, zeros: &shifts)
      }
    }
    try Self.check(scales, count: scaleCount, of: weight, elements)
    if case .groups(let scheme) = weight.scheme, scheme.layout.shift == .offsets {
      // Code 0 stands for as many scales below 0 as the zero point says, rounded as it is stored.
      for place in 0..<scaleCount { shifts[place] = 0 - scales[place] * shifts[place] }
      Self.round(&shifts, count: scaleCount, from: .f32, to: scheme.scaleDType, &narrowed)
    }
    guard let offset else { return }
    scaleCodes.reserve(scaleCount)
    nestedScales.reserve(
      FourBitCode.blockCount(of: scaleCount, blockSize: NestedScales.blockSize))
    for place in 0..<scaleCount { scales[place] -= offset }
    NestedScales.quantize(scales, count: scaleCount, into: &scaleCodes, absmax: &nestedScales)
  }

  /// Writes what the last `encode` of these elements has made.
  ///
  /// - Throws: as `OutputFile.write`.
  mutating func write(
    _ elements: Range<Int>, of weight: QuantizePlan.Weight, to target: Target
  ) throws(PeftoolError) {
    if case .groups(let scheme) = weight.scheme {
      let columns = weight.columnCount
      let packing = GroupPacking(
        scheme: scheme, outputs: weight.rowCount, inputs: columns,
        rows: elements.lowerBound / columns..<elements.upperBound / columns)
      return try packing.write(
        codes.bytes(weight.codeByteCount(of: elements.count)), scales: scales.span,
        shifts: shifts.span, to: target)
    }
    try target.codes.file.write(
      codes.bytes(weight.codeByteCount(of: elements.count)),
      at: target.codes.offset + weight.codeByteCount(of: elements.lowerBound))
    let count = weight.scaleCount(of: elements.count)
    let first = weight.scaleCount(of: elements.lowerBound)
    guard let nested = target.nested else {
      try Self.write(scales, count, at: first, to: target.scales)
      return
    }
    try target.scales.file.write(scaleCodes.bytes(count), at: target.scales.offset + first)
    try Self.write(
      nestedScales, FourBitCode.blockCount(of: count, blockSize: NestedScales.blockSize),
      at: first / NestedScales.blockSize, to: nested)
  }

  /// What the last `encode` of these elements has lost.
  mutating func compare(
    _ elements: Range<Int>, of weight: QuantizePlan.Weight, offset: Float?
  ) -> ElementComparison {
    var comparison = ElementComparison()
    decodeScales(weight.scaleCount(of: elements.count), offset)
    for tile in weight.tiles(of: elements.count) {
      widen(tile, of: weight)
      decode(tile, of: weight)
      comparison.add(
        ElementComparison(
          restored.span, values.span, count: tile.count,
          within: .init(absolute: 0, relative: 0)))
    }
    return comparison
  }

  /// What the codes of the last `encode` of these elements stand for, in the weight's type.
  mutating func restore(
    _ elements: Range<Int>, of weight: QuantizePlan.Weight, offset: Float?,
    into block: inout Block
  ) {
    decodeScales(weight.scaleCount(of: elements.count), offset)
    let size = weight.dtype.bitCount / 8
    block.reserve(elements.count * size)
    for tile in weight.tiles(of: elements.count) {
      decode(tile, of: weight)
      var bytes = block.mutableBytes(elements.count * size)
      var part = bytes._mutatingExtracting(tile.lowerBound * size..<tile.upperBound * size)
      Float.narrow(restored.span, weight.dtype, into: &part, count: tile.count)
    }
  }

  /// scales ← what their codes stand for.
  private mutating func decodeScales(_ count: Int, _ offset: Float?) {
    guard let offset else { return }
    NestedScales.dequantize(
      scaleCodes, absmax: nestedScales, offset: offset, count: count, into: &scales)
  }

  /// restored ← what the codes of a tile stand for.
  private mutating func decode(_ tile: Range<Int>, of weight: QuantizePlan.Weight) {
    restored.reserve(tile.count)
    switch weight.scheme {
    case .blocks(let code, let blockSize, _):
      code.dequantize(codes, tile, blockSize: blockSize, scales: scales, into: &restored)
    case .rows:
      let rows = tile.lowerBound / weight.columnCount..<tile.upperBound / weight.columnCount
      RowInt8.dequantize(
        codes, rows, columns: weight.columnCount, scales: scales, into: &restored)
    case .groups(let scheme):
      GroupInt4.dequantize(codes, tile, scheme, scales: scales, shifts: shifts, into: &restored)
    }
  }

  /// values ← a tile of what was read, in the type in which transformers loads it.
  private mutating func widen(_ tile: Range<Int>, of weight: QuantizePlan.Weight) {
    values.reserve(tile.count)
    Self.widen(reader, tile, weight.tensor.dtype, into: &values)
    Self.round(
      &values, count: tile.count, from: weight.tensor.dtype, to: weight.loadDType, &narrowed)
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
    narrowed.reserve(byteCount)
    var bytes = narrowed.mutableBytes(byteCount)
    Float.narrow(values.span, dtype, into: &bytes, count: count)
    var span = values.mutableSpan
    Float.widen(narrowed.bytes(byteCount), dtype, into: &span, count: count)
  }

  private static func write(
    _ scales: [Float], _ count: Int, at first: Int, to place: Target.Place
  ) throws(PeftoolError) {
    // A Float lies in memory as F32 in a file, on the little-endian machines that peftool runs on.
    let span = scales.span.extracting(0..<count)
    try unsafe place.file.write(span.bytes, at: place.offset + first * 4)
  }

  /// Refuses scales that are NaN or infinite: their blocks have such an element.
  private static func check(
    _ scales: [Float], count: Int, of weight: QuantizePlan.Weight, _ elements: Range<Int>
  ) throws(PeftoolError) {
    guard let bad = scales[..<count].firstIndex(where: { !$0.isFinite }) else { return }
    let isHalf = weight.scheme == .rows || weight.loadDType == .f16
    var what = isHalf ? "NaN, infinity or a magnitude above 65504" : "NaN or infinity"
    if case .groups(let scheme) = weight.scheme {
      what = "NaN, infinity or numbers too far apart for a scale in \(scheme.scaleDType.rawValue)"
    }
    let element = elements.lowerBound + bad * weight.unitElementCount
    throw weight.tensor.at(
      PeftoolError(
        .unsupported,
        "has \(what) near row \(element / weight.columnCount), which no code stands for"))
  }
}

extension WeightQuantizer {
  /// Where the tensors of a weight go.
  struct Target: Sendable {
    /// A file and the offset of the tensor's first byte.
    struct Place: Sendable {
      let file: OutputFile
      let offset: Int
    }

    let codes: Place
    let scales: Place
    /// The scales' scales; nil without double quantization.
    let nested: Place?
    /// The offsets or zero points of groups; nil where there are none.
    let shifts: Place?
  }
}

extension QuantizePlan.Weight {
  /// The elements that share a scale.
  var unitElementCount: Int {
    switch scheme {
    case .rows: columnCount
    case .blocks(_, let blockSize, _): blockSize
    case .groups(let scheme): scheme.groupSize
    }
  }

  /// Elements that can be coded without others, and fill tiles.
  var stepUnitElementCount: Int {
    switch scheme {
    case .rows: columnCount
    case .blocks(_, let blockSize, let isNested):
      max(
        WeightQuantizer.tileElementCount, isNested ? blockSize * NestedScales.blockSize : blockSize)
    // Words have eight rows in some layouts.
    case .groups: columnCount * 8
    }
  }

  /// The ranges of its elements that are a step each.
  func steps(elementCount: Int) -> [Range<Int>] {
    (0..<rowCount * columnCount).cut(
      into: max(1, elementCount / stepUnitElementCount) * stepUnitElementCount)
  }

  /// The bytes of so many elements' codes.
  func codeByteCount(of count: Int) -> Int {
    scheme == .rows ? count : FourBitCode.byteCount(of: count)
  }

  /// The scales of so many elements.
  func scaleCount(of count: Int) -> Int {
    FourBitCode.blockCount(of: count, blockSize: unitElementCount)
  }

  /// The tiles of so many elements.
  fileprivate func tiles(of count: Int) -> [Range<Int>] {
    let length = WeightQuantizer.tileElementCount
    return (0..<count).cut(
      into: scheme == .rows ? max(1, length / columnCount) * columnCount : length)
  }
}

extension [Float] {
  /// Makes room for so many numbers, whose values do not matter.
  fileprivate mutating func reserve(_ count: Int) {
    if self.count < count { self = Array(repeating: 0, count: count) }
  }
}
