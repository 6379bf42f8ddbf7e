import Checkpoints
import Files
import LinearAlgebra
import Reports
import Tensors

/// A GGUF file to be written: its metadata, and tensors made of others by blocks of rows.
///
/// Peak memory: the metadata; for each thread 2 blocks of 1 MiB in F32, or of one head's rows where
/// those are more, and what is read for them.
struct GGUFOutput: Sendable {
  /// A tensor of the file.
  struct Tensor: Sendable {
    let name: String
    let dtype: DType
    let content: Content

    var shape: [Int] {
      switch content {
      case .values(let values): [values.count]
      case .stored(let stored): stored.shape
      }
    }
  }

  /// Where a tensor's numbers come from.
  enum Content: Sendable {
    /// A vector of numbers.
    case values([Float])
    case stored(Stored)
  }

  /// A tensor that is read, and what is done to it.
  struct Stored: Sendable {
    let source: any TensorSource
    let info: TensorInfo
    var order = Order.kept
    /// What its numbers are multiplied by.
    var factor = 1.0

    /// Where its rows go.
    enum Order: Sendable {
      case kept
      /// The two halves of each head's so many rows change into pairs.
      case interleaved(Int)
      /// Rows become columns.
      case transposed
    }

    var shape: [Int] {
      if case .transposed = order { info.shape.reversed() } else { info.shape }
    }
  }

  let tensors: [Tensor]
  private let layout: GGUFLayout

  /// Lays the file out.
  ///
  /// - Throws: as `GGUFLayout`.
  init(_ fields: [GGUFField], _ tensors: [Tensor]) throws(PeftoolError) {
    self.tensors = tensors
    layout = try GGUFLayout(
      fields, tensors.map { .init(name: $0.name, dtype: $0.dtype, shape: $0.shape) })
  }

  /// The size of the file.
  var byteCount: Int { layout.byteCount }
  /// The number of tensors.
  var tensorCount: Int { tensors.count }

  /// Writes the file, and puts it in its place.
  ///
  /// - Throws: `io`, `damaged` where an input is cut short, `different` where it changed meanwhile
  ///   or a number does not fit the dtype.
  func run(
    to path: String, apartFrom inputs: [any TensorSource], isForced: Bool, threads: Int?,
    progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) {
    var files: [InputFile] = []
    for input in inputs { files += try input.inputFiles }
    var output = try StagedOutput(.file, at: path, force: isForced, apartFrom: files)
    let file = try output.createFile(byteCount: layout.byteCount)
    _ = try pass.run(
      into: [file], threads: threads ?? availableProcessorCount, progress: progress, worker: {},
      perform: { (_, rows) throws(PeftoolError) in
        progress(try write(rows, to: file))
      })
    for input in inputs { try input.verifyUnchanged() }
    try output.commit()
  }
}

// The pass.
extension GGUFOutput {
  /// Elements of a stored tensor, which are whole rows of the output.
  private struct Rows: Sendable {
    let elements: Range<Int>
    let tensor: Int
    let stored: Stored
    let offset: Int
  }

  private static let blockElementCount = 1 << 18

  private var pass: OutputPass<Rows> {
    var pass = OutputPass<Rows>()
    pass.append(layout.header, to: 0, at: 0)
    for (place, tensor) in tensors.enumerated() {
      let range = layout.byteRanges[place]
      switch tensor.content {
      case .values(let values):
        pass.append(Self.bytes(values, tensor.dtype), to: 0, at: range.lowerBound)
      case .stored(let stored):
        for elements in Self.blocks(of: stored, tensor.dtype) {
          pass.append(
            Rows(
              elements: elements, tensor: place, stored: stored,
              offset: range.lowerBound + tensor.dtype.byteCount(of: elements.lowerBound)))
        }
      }
      pass.append(layout.padding(after: place), to: 0, at: range.upperBound)
    }
    return pass
  }

  /// A tensor's elements, cut where heads and blocks stay whole.
  private static func blocks(of stored: Stored, _ dtype: DType) -> [Range<Int>] {
    let rowElementCount = stored.shape.dropFirst().reduce(1, *)
    let unit =
      switch stored.order {
      case .kept: dtype.blockElementCount
      case .interleaved(let rows): rows * rowElementCount
      case .transposed: rowElementCount
      }
    let count = max(blockElementCount / max(unit, 1), 1) * max(unit, 1)
    return (0..<stored.info.elementCount).cut(into: count)
  }

  private static func bytes(_ values: [Float], _ dtype: DType) -> [UInt8] {
    let count = values.count
    var bytes = [UInt8](repeating: 0, count: dtype.byteCount(of: count))
    var span = bytes.mutableSpan
    // Any bit pattern is a UInt8.
    var raw = unsafe span.mutableBytes
    Float.write(values.span, dtype, into: &raw, count: count)
    return bytes
  }

  /// Reads, arranges and writes; gives the number of bytes.
  private func write(_ rows: Rows, to file: OutputFile) throws(PeftoolError) -> Int {
    let tensor = tensors[rows.tensor]
    let byteCount = tensor.dtype.byteCount(of: rows.elements.count)
    var result = Block(byteCount: byteCount)
    do throws(PeftoolError) {
      if tensor.dtype.isBlock, rows.stored.info.dtype == tensor.dtype, rows.stored.factor == 1 {
        // What is coded already stays as it is.
        try rows.stored.read(rows.elements, into: &result)
        try Self.checkFinite(result.bytes(byteCount), tensor.dtype, count: rows.elements.count)
        try file.write(result.bytes(byteCount), at: rows.offset)
        return byteCount
      }
      // One rounding: a product, or a number that f32 does not hold, is rounded from f64.
      if tensor.dtype.isBlock || rows.stored.info.dtype.fitsSingle && rows.stored.factor == 1 {
        let values = try rows.stored.values(rows.elements, Float.self)
        var bytes = result.mutableBytes(byteCount)
        Float.write(values.span, tensor.dtype, into: &bytes, count: values.count)
      } else {
        let values = try rows.stored.values(rows.elements, Double.self)
        var bytes = result.mutableBytes(byteCount)
        Double.narrow(values.span, tensor.dtype, into: &bytes, count: values.count)
      }
      try Self.checkFinite(result.bytes(byteCount), tensor.dtype, count: rows.elements.count)
    } catch {
      let info = rows.stored.info
      throw error.at(tensor: info.name, path: rows.stored.source.files[info.fileIndex].path)
    }
    try file.write(result.bytes(byteCount), at: rows.offset)
    return byteCount
  }

  private static func checkFinite(
    _ bytes: RawSpan, _ dtype: DType, count: Int
  ) throws(PeftoolError) {
    let found =
      dtype.isBlock
      ? dtype.nonfiniteBlockCount(bytes, count: count) : dtype.nonfiniteCount(bytes, count: count)
    guard found > 0 else { return }
    throw PeftoolError(
      .different,
      "\(found.text(of: dtype.isBlock ? "block" : "element")) NaN or infinite in "
        + dtype.rawValue
        + (dtype == .f32 || dtype == .bf16 ? "" : "; F32 and BF16 hold larger numbers"))
  }
}

extension GGUFOutput.Stored {
  /// The numbers of elements of the output.
  fileprivate func values<R: Real>(
    _ elements: Range<Int>, _: R.Type
  ) throws(PeftoolError) -> [R] {
    let count = elements.count
    var values = [R](repeating: 0, count: count)
    var block = Block(byteCount: info.dtype.byteCount(of: count))
    var span = values.mutableSpan
    if case .transposed = order {
      try readTransposed(elements, into: &span)
      return values
    }
    try read(elements, into: &block)
    R.read(block.bytes(info.dtype.byteCount(of: count)), info.dtype, into: &span, count: count)
    if factor != 1 { R.scale(&span, at: 0, by: R(factor), count: count) }
    return values
  }

  /// The bytes of elements that are not transposed, in the order of the output.
  fileprivate func read(
    _ elements: Range<Int>, into block: inout Block
  ) throws(PeftoolError) {
    guard case .interleaved(let rows) = order else {
      return try source.read(info, elements: elements, as: info.dtype, into: &block)
    }
    var read = Block(byteCount: block.byteCount)
    try source.read(info, elements: elements, as: info.dtype, into: &read)
    read.interleave(
      rows: rows, rowByteCount: info.dtype.byteCount(of: info.rowElementCount), into: &block)
  }

  /// Rows of the output, each a column of what is read.
  private func readTransposed<R: Real>(
    _ elements: Range<Int>, into values: inout MutableSpan<R>
  ) throws(PeftoolError) {
    let inner = info.shape[0]
    let rows = elements.lowerBound / inner..<elements.upperBound / inner
    var block = Block(byteCount: info.dtype.byteCount(of: rows.count))
    var column = [R](repeating: 0, count: rows.count)
    for place in 0..<inner {
      let start = place * info.shape[1]
      try source.read(
        info, elements: start + rows.lowerBound..<start + rows.upperBound, as: info.dtype,
        into: &block)
      var span = column.mutableSpan
      R.read(
        block.bytes(info.dtype.byteCount(of: rows.count)), info.dtype, into: &span,
        count: rows.count)
      for row in 0..<rows.count { values[row * inner + place] = span[row] * R(factor) }
    }
  }
}

extension TensorInfo {
  /// The elements of a row, of a vector one.
  var rowElementCount: Int { shape.dropFirst().reduce(1, *) }
}
