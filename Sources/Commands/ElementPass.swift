import Checkpoints
import Files
import LinearAlgebra
import Reports
import Synchronization
import Tensors

/// One worker's memory for a pass over tensors: blocks of bytes, and the values in them.
///
/// 1.5 MB, whatever the tensors.
struct ElementScratch: ~Copyable {
  /// The elements of a block; one of the widest dtype has 512 KiB.
  static let blockElementCount = 1 << 16
  private static let blockByteCount = blockElementCount * 8

  var bytes = Block(byteCount: blockByteCount)
  var otherBytes = Block(byteCount: blockByteCount)
  var singles = Values<Float>()
  var doubles = Values<Double>()

  /// The values of one block, and of the block that it is compared with; memory once asked for.
  struct Values<R: Real>: ~Copyable {
    private(set) var left: [R] = []
    private(set) var right: [R] = []

    /// Reads the block's elements.
    mutating func readLeft(_ bytes: RawSpan, _ dtype: DType, count: Int) {
      if left.isEmpty { left = Array(repeating: 0, count: blockElementCount) }
      var span = left.mutableSpan
      R.read(bytes, dtype, into: &span, count: count)
    }

    /// Reads the other block's elements.
    mutating func readRight(_ bytes: RawSpan, _ dtype: DType, count: Int) {
      if right.isEmpty { right = Array(repeating: 0, count: blockElementCount) }
      var span = right.mutableSpan
      R.read(bytes, dtype, into: &span, count: count)
    }
  }
}

/// Elements cut into segments, which several workers go through, each from its first block to its
/// last.
///
/// Segments and blocks have the same bounds whatever the number of threads, and what they give is
/// put together in their order, so that sums have the same last bits on every run.
struct ElementPass: Sendable {
  /// A part of one item; segments are small enough to keep all workers busy to the end, and large
  /// enough that a model of a terabyte has no more than some ten thousand.
  struct Segment: Sendable {
    let item: Int
    let elements: Range<Int>

    /// The elements' ranges, a block each.
    var blocks: [Range<Int>] {
      stride(
        from: elements.lowerBound, to: elements.upperBound, by: ElementScratch.blockElementCount
      )
      .map { $0..<min($0 + ElementScratch.blockElementCount, elements.upperBound) }
    }
  }

  private static let segmentElementCount = 128 * ElementScratch.blockElementCount

  private let segments: [Segment]
  private let itemCount: Int

  /// A pass over items of so many elements each; an item of none has no segment.
  init(elementCounts: [Int]) {
    var segments: [Segment] = []
    for (item, count) in elementCounts.enumerated() {
      for start in stride(from: 0, to: count, by: Self.segmentElementCount) {
        segments.append(
          Segment(item: item, elements: start..<min(start + Self.segmentElementCount, count)))
      }
    }
    self.segments = segments
    itemCount = elementCounts.count
  }

  /// Runs `measure` for each segment and gives for each item what its segments gave, in order.
  ///
  /// - Throws: the error of the first segment that failed.
  func run<Result: Sendable>(
    threads: Int,
    _ measure: (Segment, inout ElementScratch) throws(PeftoolError) -> Result
  ) throws(PeftoolError) -> [[Result]] {
    let results = Mutex([Result?](repeating: nil, count: segments.count))
    try forEachBlock(count: segments.count, threads: threads) {
      (queue, current) throws(PeftoolError) in
      var scratch = ElementScratch()
      while let place = queue.next() {
        current = place
        let result = try measure(segments[place], &scratch)
        results.withLock { $0[place] = result }
      }
    }
    var byItem = [[Result]](repeating: [], count: itemCount)
    for (segment, result) in zip(segments, results.withLock { $0 }) {
      if let result { byItem[segment.item].append(result) }
    }
    return byItem
  }
}

extension TensorSource {
  /// Reads the bytes of a range of a tensor's elements, which fill whole bytes or blocks, to the
  /// block's start.
  func read(
    _ tensor: TensorInfo, elements: Range<Int>, as dtype: DType, into block: inout Block
  ) throws(PeftoolError) {
    let range = dtype.byteCount(of: elements.lowerBound)..<dtype.byteCount(of: elements.upperBound)
    var bytes = block.mutableBytes(range.count)
    try read(tensor, bytes: range, into: &bytes)
  }
}
