import Adapters
import Checkpoints
import Files
import LinearAlgebra
import Tensors

extension AdapterArithmetic {
  /// Finds what would go wrong with an output's name.
  ///
  /// - Parameter others: files that are read besides, which no output may replace either.
  /// - Throws: as `StagedOutput.check`.
  func checkOutput(
    _ path: String, apartFrom others: [InputFile] = [], force: Bool
  ) throws(PeftoolError) {
    var inputs = others
    for source in sources { inputs += try source.inputFiles }
    try StagedOutput.check(.adapterFolder, at: path, force: force, apartFrom: inputs)
  }

  /// Makes the adapter, and writes a folder of PEFT's.
  ///
  /// - Parameters:
  ///   - others: files that are read besides, which no output may replace either.
  ///   - dtype: of what is written; nil for F32 of what is computed, and the rest as it is.
  ///   - progress: is told of bytes read, from any thread.
  /// - Throws: as `files` and `AdapterWriting.run`.
  func write(
    to path: String, apartFrom others: [InputFile] = [], as dtype: DType?, force: Bool,
    threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> (results: [ModuleResult], writing: AdapterWriting) {
    // Nothing is worked out for an output that cannot be written.
    try checkOutput(path, apartFrom: others, force: force)
    let threads = threads ?? availableProcessorCount
    let (files, results) = try files(as: dtype ?? .f32, threads: threads, progress: progress)
    let writing = try AdapterWriting(files.cast(to: dtype))
    try writing.run(
      to: path, inputs: sources, beside: others, isForced: force, threads: threads,
      progress: { _ in })
    return (results, writing)
  }
}
