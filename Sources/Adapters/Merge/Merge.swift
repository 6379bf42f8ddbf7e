import Checkpoints
package import Files
import JSON
import LinearAlgebra
import Synchronization
import Tensors

/// Carries out a `MergePlan` in one pass over the base.
///
/// Tensors that no adapter touches are copied by the system; a touched one goes by blocks of rows,
/// which the workers take in the order of the output. The bytes do not depend on their number.
///
/// Peak memory: for each thread 2 blocks of 1 MiB and 4 tiles of 16,384 numbers (or of one row,
/// where that is longer); for each tensor in work, of which there are no more than threads, its
/// factors A and B in f32, or f64 for an F32 base; and the headers.
package struct Merge: Sendable {
  /// Where the merged model goes.
  package enum Destination: Sendable {
    /// A model directory, with the base's other files.
    case directory(String)
    /// One safetensors file.
    case file(String)
    /// One safetensors stream to standard output.
    case stream
  }

  /// What came of it.
  package struct Summary: Sendable {
    /// Tensors that were written.
    package var tensorCount = 0
    /// Tensors that an adapter has changed.
    package var changedCount = 0
    /// The largest ‖W' − W‖ / ‖W‖ of a tensor; nil where none was changed.
    package var largestChange: (tensor: String, value: Double)?
    /// Elements that are NaN or infinite, in changed tensors.
    package var nonfiniteCount = 0
    /// The bytes of the safetensors files.
    package var byteCount = 0
  }

  /// How it is carried out.
  package struct Options: Sendable {
    /// Whether an output that is there already is replaced.
    package var isForced = false
    /// Whether NaN and infinity may be written.
    package var allowsNonfinite = false
    /// The number of threads; nil takes one a processor.
    package var threads: Int?

    package init() {}
  }

  private let plan: MergePlan
  private let destination: Destination
  private let layout: CheckpointLayout

  /// Lays the output out; `shardByteCount` is the size for new shards in a directory.
  ///
  /// - Throws: `unsupported` where the output cannot be written as a safetensors file.
  package init(
    _ plan: MergePlan, to destination: Destination, shardByteCount: Int? = nil
  ) throws(PeftoolError) {
    self.plan = plan
    self.destination = destination
    let base = plan.base.checkpoint
    let items = plan.tensors.map {
      CheckpointLayout.Item(
        name: $0.name, dtype: $0.dtype, shape: $0.base.shape, fileIndex: $0.fileIndex)
    }
    do throws(PeftoolError) {
      switch destination {
      case .directory:
        layout =
          if let shardByteCount {
            try CheckpointLayout(sharding: base, items, maximumByteCount: shardByteCount)
          } else {
            try CheckpointLayout(keeping: base, items)
          }
      case .file, .stream:
        layout =
          base.kind == .file
          ? try CheckpointLayout(keeping: base, items) : try CheckpointLayout(single: base, items)
      }
    } catch {
      throw error.at(path: base.path)
    }
  }

  /// Whether a `config.json` is written with the tensors.
  package var writesConfig: Bool {
    guard case .directory = destination else { return false }
    return plan.base.checkpoint.directory != nil
  }

  /// The bytes of the safetensors files that will be written.
  package var byteCount: Int { layout.byteCount }

  /// Merges, and puts the output in its place.
  ///
  /// - Parameter progress: is told of bytes done, from any thread.
  /// - Throws: `io`, `damaged` where an input is cut short or an adapter has values that are not
  ///   finite, `different` where an input changed meanwhile or the result is not finite.
  package func run(
    _ options: Options, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> Summary {
    switch destination {
    case .stream:
      let summary = try write([.standardOutput()], options, progress)
      try verifyInputs()
      return summary
    case .file(let path):
      var output = try StagedOutput(
        .file, at: path, force: options.isForced, apartFrom: inputs.flatMap(\.files))
      let file = try output.createFile(byteCount: layout.byteCount)
      let summary = try write([file], options, progress)
      try verifyInputs()
      try output.commit()
      return summary
    case .directory(let path):
      var output = try StagedOutput(
        .directory, at: path, force: options.isForced, apartFrom: inputs.flatMap(\.files))
      let files = try output.createFiles(of: layout)
      try output.carryOtherFiles(of: plan.base.checkpoint, config: plan.config)
      let summary = try write(files, options, progress)
      try verifyInputs()
      try output.commit()
      return summary
    }
  }

  private var inputs: [any TensorSource] {
    ([plan.base.checkpoint] + plan.adapters.map(\.checkpoint)).map(\.source)
  }

  private func verifyInputs() throws(PeftoolError) {
    for input in inputs { try input.verifyUnchanged() }
  }
}

// The pass.
extension Merge {
  /// A step of the work, in the order of the output's bytes.
  private enum Step {
    /// A file's header.
    case header(file: Int)
    /// Bytes that stay as they are.
    case copy(InputFile, Range<Int>, file: Int, offset: Int)
    /// Rows that stay as they are, but lie in another order in the input.
    case gather(Range<Int>, tensor: Int, file: Int, offset: Int)
    /// Rows of a tensor whose values change.
    case rows(Range<Int>, tensor: Int, file: Int, offset: Int)
  }

  private static let blockByteCount = 1 << 20
  private static let copyByteCount = 8 << 20

  private var steps: [Step] {
    var steps: [Step] = []
    for (place, file) in layout.files.enumerated() {
      steps.append(.header(file: place))
      var copied: (input: InputFile, range: Range<Int>, offset: Int)?
      func flush() {
        guard let run = copied else { return }
        var start = 0
        while start < run.range.count {
          let end = min(start + Self.copyByteCount, run.range.count)
          let from = run.range.lowerBound
          steps.append(
            .copy(run.input, from + start..<from + end, file: place, offset: run.offset + start))
          start = end
        }
        copied = nil
      }
      for (item, byteRange) in file.tensors where !byteRange.isEmpty {
        let tensor = plan.tensors[item]
        guard tensor.isCopy,
          let (input, range) = tensor.base.source.place(of: tensor.base.info)
        else {
          flush()
          for (rows, offset) in blocks(of: tensor, at: byteRange.lowerBound) {
            steps.append(
              tensor.isCopy
                ? .gather(rows, tensor: item, file: place, offset: offset)
                : .rows(rows, tensor: item, file: place, offset: offset))
          }
          continue
        }
        if let run = copied, run.input === input, run.range.upperBound == range.lowerBound,
          run.offset + run.range.count == byteRange.lowerBound
        {
          copied = (input, run.range.lowerBound..<range.upperBound, run.offset)
        } else {
          flush()
          copied = (input, range, byteRange.lowerBound)
        }
      }
      flush()
    }
    return steps
  }

  /// A tensor's rows cut into blocks, each with its offset in the output.
  private func blocks(
    of tensor: OutputTensor, at offset: Int
  ) -> [(rows: Range<Int>, offset: Int)] {
    let rowByteCount = tensor.columnCount * tensor.dtype.bitCount / 8
    let baseRowByteCount = tensor.columnCount * tensor.base.dtype.bitCount / 8
    let rowCount = max(1, Self.blockByteCount / max(1, rowByteCount, baseRowByteCount))
    return stride(from: 0, to: tensor.rowCount, by: rowCount).map { row in
      (row..<min(row + rowCount, tensor.rowCount), offset + row * rowByteCount)
    }
  }

  private func write(
    _ files: [OutputFile], _ options: Options, _ progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> Summary {
    let steps = steps
    var blockCounts: [Int: Int] = [:]
    for case .rows(_, let tensor, _, _) in steps { blockCounts[tensor, default: 0] += 1 }
    let preparations = blockCounts.mapValues { Preparation(blockCount: $0) }
    let results = Mutex<[Int: BlockResult]>([:])
    try forEachBlock(
      count: steps.count, threads: options.threads ?? availableProcessorCount
    ) { (queue, current) throws(PeftoolError) in
      var worker = MergeWorker(plan, allowsNonfinite: options.allowsNonfinite)
      do throws(PeftoolError) {
        while let step = queue.next() {
          current = step
          switch steps[step] {
          case .header(let file):
            let header = layout.files[file].header
            // Any bytes may be read as bytes.
            try unsafe files[file].write(header.span.bytes, at: 0)
          case .copy(let input, let range, let file, let offset):
            try files[file].copy(range, of: input, to: offset)
            progress(range.count)
          case .gather(let rows, let tensor, let file, let offset):
            progress(try worker.gather(rows, of: tensor, into: files[file], at: offset))
          case .rows(let rows, let tensor, let file, let offset):
            guard let preparation = preparations[tensor] else { continue }
            let result = try worker.merge(
              rows, of: tensor, preparation, into: files[file], at: offset)
            results.withLock { $0[step] = result }
            progress(result.byteCount)
          }
        }
      } catch {
        for file in files { file.abandon() }
        throw error
      }
    }
    return summary(steps, results.withLock { $0 })
  }

  /// Sums up in the order of the output, so that the figures do not depend on the threads.
  private func summary(_ steps: [Step], _ results: [Int: BlockResult]) -> Summary {
    var summary = Summary()
    summary.tensorCount = plan.tensors.count
    summary.changedCount = plan.tensors.count(where: \.isChanged)
    summary.byteCount = layout.byteCount
    var sums: [Int: TileSums] = [:]
    for (place, step) in steps.enumerated() {
      guard case .rows(_, let tensor, _, _) = step, let result = results[place] else { continue }
      summary.nonfiniteCount += result.nonfiniteCount
      guard !plan.tensors[tensor].changes.isEmpty else { continue }
      sums[tensor, default: TileSums()] += result.sums
    }
    for (place, tensor) in plan.tensors.enumerated() {
      guard let sum = sums[place] else { continue }
      let value =
        sum.sumOfSquaredChange == 0
        ? 0 : (sum.sumOfSquaredChange / sum.sumOfSquares).squareRoot()
      if value > summary.largestChange?.value ?? -1 {
        summary.largestChange = (tensor.name, value)
      }
    }
    return summary
  }
}
