package import Checkpoints
package import Files
import JSON
import LinearAlgebra
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
  /// What came of it.
  package struct Summary: Sendable {
    /// Tensors that were written.
    package var tensorCount: Int
    /// Tensors that an adapter has changed.
    package var changedCount: Int
    /// The largest ‖W' − W‖ / ‖W‖ of a tensor; nil where none was changed.
    package var largestChange: (tensor: String, value: Double)?
    /// What rounding takes of the changes of all tensors of which it is measured, ‖written − exact‖ /
    /// ‖change‖; nil where there are none.
    package var roundingLoss: Double?
    /// Elements that are NaN or infinite, in changed tensors.
    package var nonfiniteCount = 0
    /// The bytes of the safetensors files.
    package var byteCount = 0

    /// What a plan tells before anything is read.
    package init(_ plan: MergePlan) {
      tensorCount = plan.tensors.count
      changedCount = plan.tensors.count(where: \.isChanged)
    }
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
  private let output: ModelOutput

  /// Lays the output out; `shardByteCount` is the size for new shards in a directory.
  ///
  /// - Throws: `unsupported` where the output cannot be written as a safetensors file.
  package init(
    _ plan: MergePlan, to destination: ModelOutput.Destination, shardByteCount: Int? = nil
  ) throws(PeftoolError) {
    self.plan = plan
    let base = plan.base.checkpoint
    let items = plan.tensors.map {
      CheckpointLayout.Item(
        name: $0.name, dtype: $0.dtype, shape: $0.base.shape, fileIndex: $0.fileIndex)
    }
    let layout: CheckpointLayout
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
    output = ModelOutput(
      to: destination, layout, inputs: ([base] + plan.adapters.map(\.checkpoint)).map(\.source))
  }

  private var layout: CheckpointLayout { output.layout }

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
    try output.write(force: options.isForced) { (folder) throws(PeftoolError) in
      try folder.carryOtherFiles(of: plan.base.checkpoint, config: plan.config)
    } tensors: { (files) throws(PeftoolError) in
      try write(files, options, progress)
    }
  }
}

// The pass.
extension Merge {
  /// Rows of a tensor whose values change.
  private struct Rows {
    let rows: Range<Int>
    let tensor: Int
    let file: Int
    let offset: Int
  }

  private static let blockByteCount = 1 << 20

  private var pass: OutputPass<Rows> {
    var pass = OutputPass<Rows>()
    for (place, file) in layout.files.enumerated() {
      pass.append(file.header, to: place, at: 0)
      for (item, byteRange) in file.tensors where !byteRange.isEmpty {
        let tensor = plan.tensors[item]
        if tensor.isCopy {
          pass.append(
            copyOf: tensor.base.info, in: tensor.base.source, to: place, at: byteRange.lowerBound)
        } else {
          for (rows, offset) in blocks(of: tensor, at: byteRange.lowerBound) {
            pass.append(Rows(rows: rows, tensor: item, file: place, offset: offset))
          }
        }
      }
    }
    return pass
  }

  /// A tensor's rows cut into blocks, each with its offset in the output.
  private func blocks(
    of tensor: OutputTensor, at offset: Int
  ) -> [(rows: Range<Int>, offset: Int)] {
    let rowByteCount = tensor.columnCount * tensor.dtype.bitCount / 8
    let baseRowByteCount = tensor.columnCount * tensor.base.dtype.bitCount / 8
    let rowCount = max(1, Self.blockByteCount / max(1, rowByteCount, baseRowByteCount))
    return (0..<tensor.rowCount).cut(into: rowCount).map { rows in
      (rows, offset + rows.lowerBound * rowByteCount)
    }
  }

  private func write(
    _ files: [OutputFile], _ options: Options, _ progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> Summary {
    let pass = pass
    var blockCounts: [Int: Int] = [:]
    for work in pass.works { blockCounts[work.tensor, default: 0] += 1 }
    let preparations = blockCounts.mapValues { Preparation(blockCount: $0) }
    let results = try pass.run(
      into: files, threads: options.threads ?? availableProcessorCount, progress: progress,
      worker: {
        MergeWorker(
          plan, allowsNonfinite: options.allowsNonfinite,
          hint: "; --allow-nonfinite lets it pass")
      },
      perform: { (worker, work) throws(PeftoolError) -> BlockResult in
        guard let preparation = preparations[work.tensor] else {
          preconditionFailure("every tensor with rows has a preparation")
        }
        let result = try worker.merge(work.rows, of: work.tensor, preparation)
        try worker.write(result.byteCount, to: files[work.file], at: work.offset)
        progress(result.byteCount)
        return result
      })
    return summary(pass.works, results)
  }

  /// Sums up in the order of the output, so that the figures do not depend on the threads.
  private func summary(_ works: [Rows], _ results: [BlockResult]) -> Summary {
    var summary = Summary(plan)
    summary.byteCount = layout.byteCount
    var sums: [Int: TileSums] = [:]
    for (work, result) in zip(works, results) {
      summary.nonfiniteCount += result.nonfiniteCount
      guard !plan.tensors[work.tensor].changes.isEmpty else { continue }
      sums[work.tensor, default: TileSums()] += result.sums
    }
    var measured = TileSums()
    for (place, tensor) in plan.tensors.enumerated() {
      guard let sum = sums[place] else { continue }
      if tensor.isMeasured { measured += sum }
      let value =
        sum.sumOfSquaredChange == 0
        ? 0 : (sum.sumOfSquaredChange / sum.sumOfSquares).squareRoot()
      if value > summary.largestChange?.value ?? -1 {
        summary.largestChange = (tensor.name, value)
      }
    }
    if measured.sumOfSquaredChange > 0 {
      summary.roundingLoss =
        (measured.sumOfSquaredRounding / measured.sumOfSquaredChange).squareRoot()
    }
    return summary
  }
}
