import Checkpoints
import Files
import Reports
import Tensors

/// What the tensors hold, by one pass over their bytes.
///
/// Peak memory: 1.5 MB a thread.
/// - Returns: for each tensor its statistics, or nil for a dtype whose numbers peftool does not
///   read (packed and complex ones).
/// - Throws: as `TensorSource.read`, and `different` where a file changed meanwhile.
func statistics(
  of tensors: [TensorInfo], in source: any TensorSource, threads: Int, progress: ProgressLine
) throws(PeftoolError) -> [ElementStatistics?] {
  let pass = ElementPass(elementCounts: tensors.map { $0.dtype.isNumeric ? $0.elementCount : 0 })
  let parts = try pass.run(threads: threads) { (segment, scratch) throws(PeftoolError) in
    let tensor = tensors[segment.item]
    var sum = ElementStatistics()
    for elements in segment.blocks {
      try source.read(tensor, elements: elements, as: tensor.dtype, into: &scratch.bytes)
      sum.add(scratch.statistics(tensor.dtype, count: elements.count))
      progress.advance(by: tensor.dtype.byteCount(of: elements.count))
    }
    return sum
  }
  try source.verifyUnchanged()
  return zip(tensors, parts).map { tensor, parts in
    tensor.dtype.isNumeric ? parts.sum : nil
  }
}

extension [ElementStatistics] {
  /// The statistics of all their elements.
  var sum: ElementStatistics { reduce(into: ElementStatistics()) { $0.add($1) } }
}

extension ElementScratch {
  /// The statistics of the block's first `count` elements, of a numeric dtype.
  fileprivate mutating func statistics(_ dtype: DType, count: Int) -> ElementStatistics {
    dtype.fitsSingle
      ? Self.statistics(bytes, dtype, count: count, &singles)
      : Self.statistics(bytes, dtype, count: count, &doubles)
  }

  private static func statistics<R>(
    _ block: borrowing Block, _ dtype: DType, count: Int, _ values: inout Values<R>
  ) -> ElementStatistics {
    values.readLeft(block.bytes(dtype.byteCount(of: count)), dtype, count: count)
    return ElementStatistics(values.left.span, count: count)
  }
}
