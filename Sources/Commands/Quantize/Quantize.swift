import Adapters
import Checkpoints
import Files
import LinearAlgebra
import Quantization
import Synchronization
import Tensors

/// Carries out a `QuantizePlan`.
///
/// The steps go over ranges of elements that begin and end with blocks, so the bytes do not depend
/// on the threads. Double quantization reads the weights twice: the mean of all scales of a weight
/// stands in its state, whose length the header of the file has to know.
///
/// Peak memory: for each thread a step of some MiB; the scales of the weights in work, a 64th of
/// their elements; the headers.
struct Quantize: Sendable {
  /// What came of it.
  struct Summary: Sendable {
    /// The bytes of the tensors' files.
    var byteCount = 0
    /// What each weight has lost; empty without a report.
    var losses: [QuantizationLoss] = []
  }

  /// How it is carried out.
  struct Options: Sendable {
    var isForced = false
    var threads: Int?
    var isCompared = false
  }

  let plan: QuantizePlan

  private static let stepElementCount = 1 << 19
  private static let copyByteCount = 8 << 20

  /// The bytes that are read.
  var inputByteCount: Int {
    let whole = plan.base.tensors.reduce(0) { $0 + $1.stored.info.byteCount }
    guard isNested else { return whole }
    return whole + plan.weights.reduce(0) { $0 + $1.tensor.info.byteCount }
  }

  private var isNested: Bool {
    if case .blocks(_, _, true) = plan.options.scheme { true } else { false }
  }

  /// Quantizes, and puts the output in its place.
  ///
  /// - Parameter progress: is told of bytes read, from any thread.
  /// - Throws: `io`; `unsupported` where a weight has NaN or infinity; `damaged` and `different`
  ///   where an input is cut short or changes.
  func run(
    to path: String, _ options: Options, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> Summary {
    let offsets = try offsets(options, progress)
    let tensors = plan.tensors(offsets: offsets)
    let layout = try CheckpointLayout(
      saving: tensors.map { .init(name: $0.name, dtype: $0.dtype, shape: $0.shape, fileIndex: 0) },
      maximumByteCount: plan.options.shardByteCount, parameterCount: plan.parameterCount)
    let folder = ModelFolder(source: plan.base.checkpoint, layout: layout, config: plan.config)
    return try folder.write(to: path, force: options.isForced) { files throws(PeftoolError) in
      try write(tensors, layout, files, offsets, options, progress)
    }
  }

  /// The ranges of a weight's elements that are a step each.
  private func ranges(of weight: LinearModules.Weight) -> [Range<Int>] {
    let count = weight.rowCount * weight.columnCount
    let unit =
      switch plan.options.scheme {
      case .rows: weight.columnCount
      case .blocks(_, let blockSize, let isNested):
        max(
          QuantizeWorker.tileElementCount, isNested ? blockSize * NestedScales.blockSize : blockSize
        )
      }
    let length = max(1, Self.stepElementCount / unit) * unit
    return stride(from: 0, to: count, by: length).map { $0..<min($0 + length, count) }
  }

  /// The first pass of double quantization: the mean of each weight's scales.
  private func offsets(
    _ options: Options, _ progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> [Float?] {
    guard case .blocks(_, let blockSize, true) = plan.options.scheme else {
      return Array(repeating: nil, count: plan.weights.count)
    }
    var steps: [(weight: Int, elements: Range<Int>)] = []
    var means: [Mean] = []
    for (place, weight) in plan.weights.enumerated() {
      let ranges = ranges(of: weight)
      steps += ranges.map { (place, $0) }
      means.append(Mean(stepCount: ranges.count))
    }
    try forEachBlock(
      count: steps.count, threads: options.threads ?? availableProcessorCount
    ) { (queue, current) throws(PeftoolError) in
      var worker = QuantizeWorker(plan, isCompared: false)
      while let step = queue.next() {
        current = step
        let (place, elements) = steps[step]
        let absmax = try worker.absmax(elements, of: place, blockSize: blockSize)
        means[place].add(absmax, at: elements.lowerBound)
        progress(elements.count * plan.weights[place].tensor.dtype.bitCount / 8)
      }
    }
    return means.map(\.value)
  }

  /// A step of the second pass.
  private enum Step {
    case header(file: Int)
    case bytes([UInt8], file: Int, offset: Int)
    case copy(InputFile, Range<Int>, file: Int, offset: Int)
    /// Bytes that stay as they are, but lie in another order in the input.
    case gather(StoredTensor, Range<Int>, file: Int, offset: Int)
    case convert(StoredTensor, Range<Int>, DType, file: Int, offset: Int)
    case quantize(weight: Int, Range<Int>)
  }

  private func write(
    _ tensors: [QuantizePlan.Tensor], _ layout: CheckpointLayout, _ files: [OutputFile],
    _ offsets: [Float?], _ options: Options, _ progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> Summary {
    var places: [ExactPlace: (file: Int, offset: Int)] = [:]
    var steps: [Step] = []
    for (file, entry) in layout.files.enumerated() {
      steps.append(.header(file: file))
      for (item, range) in entry.tensors {
        let offset = range.lowerBound
        switch tensors[item].content {
        case .bytes(let bytes): steps.append(.bytes(bytes, file: file, offset: offset))
        case .copy(let stored, let dtype):
          steps += copies(of: stored, as: dtype, file: file, at: offset)
        case .codes(let weight): places[ExactPlace(weight, .codes)] = (file, offset)
        case .scales(let weight): places[ExactPlace(weight, .scales)] = (file, offset)
        case .nestedScales(let weight): places[ExactPlace(weight, .nested)] = (file, offset)
        }
      }
    }
    var targets: [QuantizeWorker.Target] = []
    for (weight, found) in plan.weights.enumerated() {
      func place(_ part: ExactPlace.Part) -> QuantizeWorker.Target.Place? {
        places[ExactPlace(weight, part)].map { .init(file: files[$0.file], offset: $0.offset) }
      }
      guard let codes = place(.codes), let scales = place(.scales) else {
        preconditionFailure("every weight has its tensors in the layout")
      }
      targets.append(.init(codes: codes, scales: scales, nested: place(.nested)))
      steps += ranges(of: found).map { .quantize(weight: weight, $0) }
    }
    let found = Mutex<[Int: ElementComparison]>([:])
    try forEachBlock(
      count: steps.count, threads: options.threads ?? availableProcessorCount
    ) { (queue, current) throws(PeftoolError) in
      var worker = QuantizeWorker(plan, isCompared: options.isCompared)
      while let step = queue.next() {
        current = step
        switch steps[step] {
        case .header(let file):
          let header = layout.files[file].header
          // Any bytes may be read as bytes.
          try unsafe files[file].write(header.span.bytes, at: 0)
        case .bytes(let bytes, let file, let offset):
          // As above.
          try unsafe files[file].write(bytes.span.bytes, at: offset)
        case .copy(let input, let range, let file, let offset):
          try files[file].copy(range, of: input, to: offset)
          progress(range.count)
        case .gather(let tensor, let range, let file, let offset):
          try worker.gather(range, of: tensor, in: files[file], at: offset)
          progress(range.count)
        case .convert(let tensor, let elements, let dtype, let file, let offset):
          try worker.convert(elements, of: tensor, to: dtype, in: files[file], at: offset)
          progress(elements.count * tensor.dtype.bitCount / 8)
        case .quantize(let weight, let elements):
          let comparison = try quantize(
            elements, of: weight, offsets[weight], to: targets[weight], &worker)
          if options.isCompared { found.withLock { $0[step] = comparison } }
          progress(elements.count * plan.weights[weight].tensor.dtype.bitCount / 8)
        }
      }
    }
    var summary = Summary()
    summary.byteCount = layout.byteCount
    guard options.isCompared else { return summary }
    // In the order of the steps, so that the sums do not depend on the threads.
    var sums = Array(repeating: ElementComparison(), count: plan.weights.count)
    let comparisons = found.withLock { $0 }
    for (place, step) in steps.enumerated() {
      guard case .quantize(let weight, _) = step, let next = comparisons[place] else { continue }
      sums[weight].add(next)
    }
    summary.losses = plan.weights.indices.map { place in
      QuantizationLoss(
        module: plan.weights[place].module,
        count: plan.weights[place].rowCount * plan.weights[place].columnCount,
        byteCount: plan.byteCount(of: place, offset: offsets[place]), sums[place])
    }
    return summary
  }

  private func quantize(
    _ elements: Range<Int>, of weight: Int, _ offset: Float?, to target: QuantizeWorker.Target,
    _ worker: inout QuantizeWorker
  ) throws(PeftoolError) -> ElementComparison {
    switch plan.options.scheme {
    case .blocks(let code, let blockSize, _):
      return try worker.quantize(
        elements, of: weight, code, blockSize: blockSize, offset: offset, to: target)
    case .rows:
      let columns = plan.weights[weight].columnCount
      return try worker.quantize(
        rows: elements.lowerBound / columns..<elements.upperBound / columns, of: weight,
        to: target)
    }
  }

  private func copies(
    of stored: StoredTensor, as dtype: DType, file: Int, at offset: Int
  ) -> [Step] {
    guard stored.dtype != dtype else {
      guard let (input, range) = stored.source.place(of: stored.info) else {
        let byteCount = stored.info.byteCount
        return stride(from: 0, to: byteCount, by: Self.copyByteCount).map {
          .gather(
            stored, $0..<min($0 + Self.copyByteCount, byteCount), file: file,
            offset: offset + $0)
        }
      }
      return stride(from: 0, to: range.count, by: Self.copyByteCount).map {
        let start = range.lowerBound + $0
        return .copy(
          input, start..<min(start + Self.copyByteCount, range.upperBound), file: file,
          offset: offset + $0)
      }
    }
    let count = stored.info.elementCount
    return stride(from: 0, to: count, by: Self.stepElementCount).map {
      .convert(
        stored, $0..<min($0 + Self.stepElementCount, count), dtype, file: file,
        offset: offset + $0 * dtype.bitCount / 8)
    }
  }
}

/// One of a weight's tensors.
private struct ExactPlace: Hashable {
  enum Part { case codes, scales, nested }
  let weight: Int
  let part: Part

  init(_ weight: Int, _ part: Part) {
    self.weight = weight
    self.part = part
  }
}

/// The mean of the scales of a weight, once all its steps have given theirs.
private final class Mean: Sendable {
  private struct State {
    var parts: [(start: Int, absmax: [Float])] = []
    var mean: Float?
  }

  private let stepCount: Int
  private let state = Mutex(State())

  init(stepCount: Int) { self.stepCount = stepCount }

  var value: Float? { state.withLock { $0.mean } }

  func add(_ absmax: [Float], at start: Int) {
    state.withLock { state in
      state.parts.append((start, absmax))
      guard state.parts.count == stepCount else { return }
      let all = state.parts.sorted { $0.start < $1.start }.flatMap(\.absmax)
      state.parts = []
      state.mean = NestedScales.offset(of: all.span)
    }
  }
}
