import Checkpoints
import Files
import Tensors

/// A few rows of a tensor while they are merged: the one place of the merge's arithmetic.
///
/// Memory: four arrays of `elementCount` numbers, or of one row where that is longer, and as many
/// bytes as their widest elements take.
struct Tile<R: Real>: ~Copyable {
  /// The elements that a tile aims at: small enough for a core's own cache.
  private static var elementCount: Int { 1 << 14 }

  /// The rows that fit.
  let rowCount: Int
  /// The elements of a row.
  let columns: Int
  /// The base's values.
  private var w: [R]
  /// The result so far.
  private var merged: [R]
  /// What an update makes of its start.
  private var changed: [R]
  /// The low-rank product.
  private var d: [R]
  private var bytes: Block

  init(columns: Int) {
    self.columns = columns
    rowCount = max(1, Self.elementCount / max(1, columns))
    let count = rowCount * columns
    w = Array(repeating: 0, count: count)
    merged = w
    changed = w
    d = w
    bytes = Block(byteCount: count * MemoryLayout<Double>.size)
  }

  /// Merges rows: `input` has the base's bytes, `output` takes the result's.
  mutating func merge(
    _ rows: Range<Int>, of prepared: PreparedTensor<R>, from input: RawSpan,
    into output: inout MutableRawSpan
  ) throws(PeftoolError) -> TileSums {
    let tensor = prepared.tensor
    let count = rows.count * columns
    Self.widen(
      input, tensor.base.dtype, roundingTo: prepared.ownRounding ?? tensor.base.dtype, &w, &bytes,
      count)
    guard !prepared.changes.isEmpty else {
      R.narrow(w.span, tensor.dtype, into: &output, count: count)
      return TileSums()
    }
    merged.copy(w, count)
    for change in prepared.changes {
      try apply(change, prepared, rows)
      if prepared.rounding != .once { Self.round(&merged, to: tensor.baseDType, &bytes, count) }
    }
    R.narrow(merged.span, tensor.dtype, into: &output, count: count)
    var sums = TileSums(
      sumOfSquares: R.sumOfSquares(w.span, at: 0, count: count),
      sumOfSquaredChange: R.sumOfSquaredChange(merged.span, from: w.span, count: count))
    if tensor.isMeasured {
      var written = d.mutableSpan
      R.widen(
        output.bytes.extracting(0..<count * tensor.dtype.bitCount / 8), tensor.dtype,
        into: &written, count: count)
      sums.sumOfSquaredRounding = R.sumOfSquaredChange(d.span, from: merged.span, count: count)
    }
    return sums
  }

  /// merged ← merged + weight · (W' − start): start is W, or for PEFT's rounding what the adapters
  /// before have made of it.
  private mutating func apply(
    _ change: PreparedChange<R>, _ prepared: PreparedTensor<R>, _ rows: Range<Int>
  ) throws(PeftoolError) {
    let count = rows.count * columns
    if change.own == nil, case .lowRank(let d) = change.update {
      multiply(d, rows, weight: change.weight)
      R.add(self.d, to: &merged, count)
      return
    }
    if change.own == nil, case .sparse(let s) = change.update {
      s.add(rows, times: change.weight, to: &merged, columnCount: columns)
      return
    }
    let isChained = prepared.rounding != .once
    if let own = change.own {
      try read(own, rows, roundingTo: prepared.ownRounding ?? own.dtype)
    } else {
      changed.copy(isChained ? merged : w, count)
    }
    if let update = change.update {
      apply(update, rows, norms: change.own == nil && isChained)
    }
    if prepared.isSole || isChained && change.weight == 1 {
      swap(&merged, &changed)
    } else if isChained {
      d.copy(merged, count)
      R.addChange(from: d, to: changed, weight: change.weight, into: &merged, count)
    } else {
      R.addChange(from: w, to: changed, weight: change.weight, into: &merged, count)
    }
  }

  /// changed ← update(changed).
  ///
  /// With `norms` those of DoRA are of W + d and not of `changed` + d: PEFT takes them of the base
  /// also where other adapters have been merged before.
  private mutating func apply(_ update: PreparedUpdate<R>, _ rows: Range<Int>, norms ofBase: Bool) {
    let count = rows.count * columns
    switch update {
    case .lowRank(let d):
      multiply(d, rows, weight: 1)
      R.add(self.d, to: &changed, count)
    case .sparse(let s): s.add(rows, times: 1, to: &changed, columnCount: columns)
    case .doraRows(let d, let magnitude):
      multiply(d, rows, weight: 1)
      R.add(self.d, to: &changed, count)
      if ofBase { R.add(w, to: &self.d, count) }
      for row in rows {
        let start = (row - rows.lowerBound) * columns
        let sum =
          ofBase
          ? R.sumOfSquares(self.d.span, at: start, count: columns)
          : R.sumOfSquares(changed.span, at: start, count: columns)
        R.scale(&changed, at: start, by: magnitude[row] / R(sum.squareRoot()), columns)
      }
    case .doraColumns(let d, let factors):
      multiply(d, rows, weight: 1)
      R.add(self.d, to: &changed, count)
      multiplyColumns(by: factors, rows.count)
    case .multiplyColumns(let factors):
      multiplyColumns(by: factors, rows.count)
    case .multiplyRows(let factors):
      for row in rows {
        R.scale(&changed, at: (row - rows.lowerBound) * columns, by: factors[row], columns)
      }
    case .add(let x, let scaling):
      for place in 0..<count { changed[place] += scaling * x[rows.lowerBound * columns + place] }
    case .replaceRows(let places, let x):
      for row in rows {
        guard let place = places[row] else { continue }
        for column in 0..<columns {
          changed[(row - rows.lowerBound) * columns + column] = x[place * columns + column]
        }
      }
    }
  }

  private mutating func multiplyColumns(by factors: [R], _ rowCount: Int) {
    for row in 0..<rowCount { R.multiply(&changed, at: row * columns, by: factors, columns) }
  }

  /// d ← weight · scaling · B·A for some rows.
  private mutating func multiply(_ product: PreparedLowRank<R>, _ rows: Range<Int>, weight: R) {
    product.factors.multiply(rows: rows, scaling: weight * product.scaling, into: &d)
    if let dtype = product.rounding { Self.round(&d, to: dtype, &bytes, rows.count * columns) }
  }

  /// changed ← some rows of a stored tensor, as values of `dtype`.
  private mutating func read(
    _ tensor: StoredTensor, _ rows: Range<Int>, roundingTo dtype: DType
  ) throws(PeftoolError) {
    let count = rows.count * columns
    let start = rows.lowerBound * columns * tensor.dtype.bitCount / 8
    let byteCount = count * tensor.dtype.bitCount / 8
    var own = Block(byteCount: byteCount)
    var span = own.mutableBytes(byteCount)
    do throws(PeftoolError) {
      try tensor.source.read(tensor.info, bytes: start..<start + byteCount, into: &span)
    } catch {
      throw tensor.at(error)
    }
    Self.widen(
      own.bytes(byteCount), tensor.dtype, roundingTo: dtype, &changed, &bytes, count)
  }

  /// values ← elements, rounded to `rounding` where that is another dtype.
  private static func widen(
    _ elements: RawSpan, _ dtype: DType, roundingTo rounding: DType, _ values: inout [R],
    _ bytes: inout Block, _ count: Int
  ) {
    var span = values.mutableSpan
    R.widen(elements, dtype, into: &span, count: count)
    if dtype != rounding { round(&values, to: rounding, &bytes, count) }
  }

  private static func round(
    _ values: inout [R], to dtype: DType, _ bytes: inout Block, _ count: Int
  ) {
    let byteCount = count * dtype.bitCount / 8
    var narrowed = bytes.mutableBytes(byteCount)
    R.narrow(values.span, dtype, into: &narrowed, count: count)
    var span = values.mutableSpan
    R.widen(bytes.bytes(byteCount), dtype, into: &span, count: count)
  }
}

// DoRA's norms along columns, for which all rows have to be seen first.
extension Tile {
  /// ‖(W + d)[:, j]‖ for each column j, summed in f64 in the order of the rows.
  mutating func columnNorms(
    of tensor: StoredTensor, in dtype: DType, adding product: PreparedLowRank<R>
  ) throws(PeftoolError) -> [Double] {
    var sums = [Double](repeating: 0, count: columns)
    var row = 0
    while row < tensor.rowCount {
      let rows = row..<min(row + rowCount, tensor.rowCount)
      try read(tensor, rows, roundingTo: dtype)
      multiply(product, rows, weight: 1)
      R.add(d, to: &changed, rows.count * columns)
      for place in 0..<rows.count {
        R.addSquares(of: changed, at: place * columns, to: &sums, columns)
      }
      row = rows.upperBound
    }
    return sums.map { $0.squareRoot() }
  }
}

/// Sums over rows that have been merged, in f64.
struct TileSums: Sendable {
  /// Σ W².
  var sumOfSquares = 0.0
  /// Σ (W' − W)².
  var sumOfSquaredChange = 0.0
  /// Σ (what is written − W')², of tensors of which that is measured.
  var sumOfSquaredRounding = 0.0

  static func += (sums: inout TileSums, next: TileSums) {
    sums.sumOfSquares += next.sumOfSquares
    sums.sumOfSquaredChange += next.sumOfSquaredChange
    sums.sumOfSquaredRounding += next.sumOfSquaredRounding
  }
}

extension Array where Element: Real {
  /// The first `count` elements become those of another array.
  fileprivate mutating func copy(_ other: [Element], _ count: Int) {
    replaceSubrange(0..<count, with: other[0..<count])
  }
}

// The kernels on arrays: a span of one stored property would borrow them all.
extension Real {
  fileprivate static func add(_ x: [Self], to y: inout [Self], _ count: Int) {
    var span = y.mutableSpan
    add(x.span, to: &span, count: count)
  }

  fileprivate static func addChange(
    from w: [Self], to x: [Self], weight: Self, into y: inout [Self], _ count: Int
  ) {
    var span = y.mutableSpan
    addChange(from: w.span, to: x.span, weight: weight, into: &span, count: count)
  }

  fileprivate static func scale(
    _ y: inout [Self], at offset: Int, by factor: Self, _ count: Int
  ) {
    var span = y.mutableSpan
    scale(&span, at: offset, by: factor, count: count)
  }

  fileprivate static func multiply(
    _ y: inout [Self], at offset: Int, by x: [Self], _ count: Int
  ) {
    var span = y.mutableSpan
    multiply(&span, at: offset, by: x.span, count: count)
  }

  fileprivate static func addSquares(
    of x: [Self], at offset: Int, to sums: inout [Double], _ count: Int
  ) {
    var span = sums.mutableSpan
    addSquares(of: x.span, at: offset, to: &span, count: count)
  }
}
