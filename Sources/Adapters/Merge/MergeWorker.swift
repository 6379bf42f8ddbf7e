import Checkpoints
import Files
import Synchronization
import Tensors

/// What merging a block has told.
struct BlockResult: Sendable {
  var sums = TileSums()
  var nonfiniteCount = 0
  var byteCount = 0
}

/// A tensor's factors, read by the worker that comes first and dropped after the last block.
final class Preparation: Sendable {
  private let state: Mutex<(blockCount: Int, prepared: (any Sendable)?)>

  init(blockCount: Int) { state = Mutex((blockCount, nil)) }

  /// The tensor's factors, for one of its blocks.
  ///
  /// - Throws: as `PreparedTensor.init`.
  func prepared<R: Real>(
    _ type: R.Type, _ tensor: OutputTensor, _ rounding: Rounding
  ) throws(PeftoolError) -> PreparedTensor<R> {
    try state.withLock { state throws(PeftoolError) in
      let known = state.prepared as? PreparedTensor<R>
      let prepared = if let known { known } else { try PreparedTensor<R>(tensor, rounding) }
      state.blockCount -= 1
      state.prepared = state.blockCount > 0 ? prepared : nil
      return prepared
    }
  }
}

/// The buffers of one thread, and what it does with a block of rows.
struct MergeWorker: ~Copyable {
  private let plan: MergePlan
  private let allowsNonfinite: Bool
  /// What the error about a value that is not finite ends in.
  private let hint: String
  /// A block as it is read, and as it is written.
  private var input = Block(byteCount: 0)
  private var output = Block(byteCount: 0)
  private var single = Tile<Float>(columns: 0)
  private var double = Tile<Double>(columns: 0)

  init(_ plan: MergePlan, allowsNonfinite: Bool, hint: String = "") {
    self.plan = plan
    self.allowsNonfinite = allowsNonfinite
    self.hint = hint
  }

  /// Merges rows of a tensor; `write` and `copy` then have their bytes.
  ///
  /// - Throws: `different` where the result is not finite; `io`, `damaged`.
  mutating func merge(
    _ rows: Range<Int>, of place: Int, _ preparation: Preparation
  ) throws(PeftoolError) -> BlockResult {
    let tensor = plan.tensors[place]
    let result =
      if tensor.isWide {
        try Self.merge(
          rows, of: preparation.prepared(Double.self, tensor, plan.options.rounding), &double,
          &input, &output)
      } else {
        try Self.merge(
          rows, of: preparation.prepared(Float.self, tensor, plan.options.rounding), &single,
          &input, &output)
      }
    if result.nonfiniteCount > 0, !allowsNonfinite {
      throw Self.nonfinite(tensor, rows, in: output.bytes(result.byteCount), hint: hint)
    }
    return result
  }

  /// Writes the first bytes of the rows that were merged last.
  ///
  /// - Throws: as `OutputFile.write`.
  borrowing func write(
    _ byteCount: Int, to file: OutputFile, at offset: Int
  ) throws(PeftoolError) {
    try file.write(output.bytes(byteCount), at: offset)
  }

  /// Copies bytes of the rows that were merged last.
  borrowing func copy(_ range: Range<Int>, into buffer: inout MutableRawSpan) {
    output.copy(range, into: &buffer)
  }

  /// Reads a block, merges it tile by tile, and leaves the result in the output buffer.
  private static func merge<R: Real>(
    _ rows: Range<Int>, of prepared: PreparedTensor<R>, _ tile: inout Tile<R>,
    _ input: inout Block, _ output: inout Block
  ) throws(PeftoolError) -> BlockResult {
    let tensor = prepared.tensor
    let base = tensor.base
    let columns = tensor.columnCount
    let inputRowByteCount = columns * base.dtype.bitCount / 8
    let outputRowByteCount = columns * tensor.dtype.bitCount / 8
    let inputByteCount = rows.count * inputRowByteCount
    let outputByteCount = rows.count * outputRowByteCount
    if tile.columns != columns { tile = Tile(columns: columns) }
    if input.byteCount < inputByteCount { input = Block(byteCount: inputByteCount) }
    if output.byteCount < outputByteCount { output = Block(byteCount: outputByteCount) }
    var read = input.mutableBytes(inputByteCount)
    let start = rows.lowerBound * inputRowByteCount
    do throws(PeftoolError) {
      try base.source.read(base.info, bytes: start..<start + inputByteCount, into: &read)
    } catch {
      throw base.at(error)
    }
    var result = BlockResult()
    result.byteCount = outputByteCount
    var row = rows.lowerBound
    while row < rows.upperBound {
      let part = row..<min(row + tile.rowCount, rows.upperBound)
      let place = row - rows.lowerBound
      var written = output.mutableBytes(outputByteCount)
      var writtenRows = written._mutatingExtracting(
        place * outputRowByteCount..<(place + part.count) * outputRowByteCount)
      result.sums += try tile.merge(
        part, of: prepared,
        from: input.bytes(inputByteCount).extracting(
          place * inputRowByteCount..<(place + part.count) * inputRowByteCount),
        into: &writtenRows)
      row = part.upperBound
    }
    result.nonfiniteCount = tensor.dtype.nonfiniteCount(
      output.bytes(outputByteCount), count: rows.count * columns)
    return result
  }

  /// The error that names the first row with a value that is not finite.
  private static func nonfinite(
    _ tensor: OutputTensor, _ rows: Range<Int>, in bytes: RawSpan, hint: String
  ) -> PeftoolError {
    let columns = tensor.columnCount
    let rowByteCount = columns * tensor.dtype.bitCount / 8
    let row = rows.first { row in
      let start = (row - rows.lowerBound) * rowByteCount
      return tensor.dtype.nonfiniteCount(
        bytes.extracting(start..<start + rowByteCount), count: columns) > 0
    }
    return PeftoolError(
      .different,
      "row \(row ?? rows.lowerBound) has NaN or infinity in the result\(hint)", tensor: tensor.name,
      path: tensor.base.path)
  }
}
