import Files
import Tensors

/// Gathers elements of a tensor that do not lie in row-major order, in the order of its shape.
///
/// A run of elements is a few boxes: part of a row, whole rows, whole planes, and so on. Each box
/// is gone through in the order of the file, and what lies close together there is read in one
/// piece.
struct StridedReading {
  private let file: InputFile
  private let start: Int
  private let width: Int
  private let shape: [Int]
  private let strides: [Int]
  private var piece: [UInt8] = []

  /// The most that is read at once.
  static let pieceByteCount = 256 << 10
  /// Bytes between elements that are read along rather than skipped.
  static let gapByteCount = 4096

  /// A dimension of a box: so many elements, their distance in the file and in the result.
  private struct Step {
    var count: Int
    /// In bytes.
    let source: Int
    /// In elements.
    let target: Int
  }

  init(_ tensor: TensorInfo, strides: [Int], in file: InputFile) {
    self.file = file
    start = tensor.byteRange.lowerBound
    width = tensor.dtype.bitCount / 8
    shape = tensor.shape
    self.strides = strides
  }

  /// Fills `buffer` with the elements from `first` on.
  ///
  /// - Throws: as `InputFile.read`.
  mutating func read(
    elementsFrom first: Int, into buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    let end = first + buffer.byteCount / width
    // For each dimension the elements below one step along it.
    var blocks = [Int](repeating: 1, count: shape.count)
    for place in shape.indices.dropLast().reversed() {
      blocks[place] = blocks[place + 1] * shape[place + 1]
    }
    var element = first
    while element < end {
      // The outermost dimension along which a whole step begins here and still fits.
      let place =
        blocks.firstIndex { element % $0 == 0 && element + $0 <= end } ?? shape.count - 1
      let index = element / blocks[place] % shape[place]
      let count = min(shape[place] - index, (end - element) / blocks[place])
      try readBox(at: element, place, count, blocks, elementsBefore: element - first, &buffer)
      element += count * blocks[place]
    }
  }

  /// Reads `count` steps along a dimension with all that is below it.
  private mutating func readBox(
    at element: Int, _ place: Int, _ count: Int, _ blocks: [Int], elementsBefore: Int,
    _ buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    var source = start
    for (dimension, block) in blocks.enumerated() {
      source += element / block % shape[dimension] * strides[dimension] * width
    }
    var steps = [Step(count: count, source: strides[place] * width, target: blocks[place])]
    for dimension in shape.indices where dimension > place && shape[dimension] > 1 {
      steps.append(
        Step(
          count: shape[dimension], source: strides[dimension] * width, target: blocks[dimension]))
    }
    steps.sort { $0.source > $1.source }
    // The innermost steps that make up a piece, and the bytes from its first to its last.
    var span = width
    var pieceSteps: [Step] = []
    while let step = steps.last, step.source - span <= Self.gapByteCount {
      let fitting = step.source == 0 ? step.count : (Self.pieceByteCount - span) / step.source + 1
      guard fitting > 1 || step.count == 1 else { break }
      steps.removeLast()
      if fitting >= step.count {
        span += (step.count - 1) * step.source
        pieceSteps.append(step)
        continue
      }
      // Only so many at a time; the rest in further pieces of the same step.
      try read(
        pieceSteps, split: Step(count: fitting, source: step.source, target: step.target),
        of: step.count, span: span, outer: steps, source, elementsBefore, &buffer)
      return
    }
    try read(
      pieceSteps, split: nil, of: 1, span: span, outer: steps, source, elementsBefore, &buffer)
  }

  /// Reads a box piece by piece, in the order of the file.
  private mutating func read(
    _ inner: [Step], split: Step?, of splitCount: Int, span: Int, outer: [Step], _ source: Int,
    _ target: Int, _ buffer: inout MutableRawSpan
  ) throws(PeftoolError) {
    var counters = [Int](repeating: 0, count: outer.count)
    while true {
      var (from, to) = (source, target)
      for (counter, step) in zip(counters, outer) {
        from += counter * step.source
        to += counter * step.target
      }
      var done = 0
      while done < splitCount {
        var steps = inner
        var byteCount = span
        if var part = split {
          part.count = min(part.count, splitCount - done)
          byteCount += (part.count - 1) * part.source
          steps.append(part)
        }
        let (partFrom, partTo) = (
          from + done * (split?.source ?? 0), to + done * (split?.target ?? 0)
        )
        try load(partFrom, byteCount)
        scatter(steps[...], 0, partTo, &buffer)
        done += split?.count ?? 1
      }
      // The next place in the outer dimensions, the last of them fastest.
      guard let place = outer.indices.last(where: { counters[$0] + 1 < outer[$0].count }) else {
        return
      }
      counters[place] += 1
      for later in outer.indices where later > place { counters[later] = 0 }
    }
  }

  private mutating func load(_ offset: Int, _ byteCount: Int) throws(PeftoolError) {
    if piece.count < byteCount { piece = [UInt8](repeating: 0, count: byteCount) }
    let file = file
    var span = piece.mutableSpan
    // Any bit pattern is a UInt8.
    var raw = unsafe span.mutableBytes
    var part = raw._mutatingExtracting(0..<byteCount)
    try file.read(at: offset, into: &part)
  }

  /// Puts a piece's elements where they belong, by as many calls of itself as there are dimensions.
  private func scatter(
    _ steps: ArraySlice<Step>, _ from: Int, _ to: Int, _ buffer: inout MutableRawSpan
  ) {
    guard let step = steps.last, steps.count > 1 else {
      let step = steps.last ?? Step(count: 1, source: 0, target: 0)
      copy(step, from, to, &buffer)
      return
    }
    for place in 0..<step.count {
      scatter(
        steps.dropLast(), from + place * step.source, to + place * step.target, &buffer)
    }
  }

  private func copy(_ step: Step, _ from: Int, _ to: Int, _ buffer: inout MutableRawSpan) {
    switch width {
    case 1: copy(UInt8.self, step, from, to, &buffer)
    case 2: copy(UInt16.self, step, from, to, &buffer)
    case 4: copy(UInt32.self, step, from, to, &buffer)
    default: copy(UInt64.self, step, from, to, &buffer)
    }
  }

  private func copy<I: FixedWidthInteger & BitwiseCopyable>(
    _ type: I.Type, _ step: Step, _ from: Int, _ to: Int, _ buffer: inout MutableRawSpan
  ) {
    let width = MemoryLayout<I>.size
    let last = max(0, step.count - 1)
    precondition(
      from + last * step.source + width <= piece.count
        && (to + last * step.target + 1) * width <= buffer.byteCount, "elements within both")
    let bytes = unsafe piece.span.bytes
    for place in 0..<step.count {
      // Any bit pattern is an integer, and the precondition keeps both offsets inside.
      let value = unsafe bytes.unsafeLoadUnaligned(
        fromUncheckedByteOffset: from + place * step.source, as: I.self)
      unsafe buffer.storeBytes(
        of: value, toUncheckedByteOffset: (to + place * step.target) * width, as: I.self)
    }
  }
}
