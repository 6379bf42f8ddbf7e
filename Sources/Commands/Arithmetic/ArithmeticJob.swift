import Adapters
import Checkpoints
import Files
import LinearAlgebra
import Reports
import Tensors

/// What the verbs of arithmetic have in common: adapters go in, one comes out, and a report tells
/// what became of each module.
struct ArithmeticJob {
  /// What makes the adapter.
  let arithmetic: any AdapterArithmetic
  /// How, as a word for programs and a line for people.
  let method: (name: String, summary: String)
  /// Where the adapter goes.
  let output: String
  /// The path of the recipe, which no output may replace.
  var recipe: String?

  /// Finds what would go wrong with the output's name; gives what it is to be apart from.
  ///
  /// - Throws: as `StagedOutput.check`, and what is wrong with the recipe.
  @discardableResult
  func checkOutput(force: Bool) throws(PeftoolError) -> [InputFile] {
    var others: [InputFile] = []
    if let recipe { others.append(try InputFile(opening: recipe)) }
    var inputs = others
    for source in arithmetic.sources { inputs += try source.inputFiles }
    try StagedOutput.check(.adapterFolder, at: output, force: force, apartFrom: inputs)
    return others
  }

  /// Makes the adapter, and writes a folder of PEFT's.
  ///
  /// - Throws: as `AdapterArithmetic.run` and `AdapterWriting.run`.
  func run(
    _ writing: AdapterWritingOptions, label: String
  ) throws(PeftoolError) -> ArithmeticReport {
    let start = monotonicSeconds()
    let threads = writing.threads ?? availableProcessorCount
    let progress = ProgressLine(
      label, totalByteCount: arithmetic.byteCount, isQuiet: writing.quiet)
    // Nothing is worked out for an output that cannot be written.
    let others = try checkOutput(force: writing.force)
    let (adapter, results) = try arithmetic.run(
      as: writing.dtype ?? .f32, threads: threads
    ) { progress.advance(by: $0) }
    progress.finish()
    let files = try AdapterWriting(
      AdapterFormat.peft.files(for: adapter, .init(base: nil, prefix: nil))
        .cast(to: writing.dtype))
    try files.run(
      to: output, inputs: arithmetic.sources, beside: others, isForced: writing.force,
      threads: threads,
      progress: { _ in })
    return ArithmeticReport(
      output: output, inputs: arithmetic.inputs,
      method: method, results: results, inputByteCount: arithmetic.inputByteCount,
      byteCount: files.byteCount, dtypes: files.dtypes,
      dtypesBefore: arithmetic.adapterDTypes, seconds: monotonicSeconds() - start,
      notes: arithmetic.notes + adapter.notes + files.notes)
  }
}

extension ArithmeticJob {
  /// A job of a combination.
  init(combination: Combination, output: String) {
    let method = combination.settings.method
    self.init(
      arithmetic: combination, method: (method.rawValue, method.summary), output: output)
  }
}

extension BaseModel {
  /// The model at a path, quantized as it may be; nil for nil.
  ///
  /// - Throws: as `Checkpoint` and `BaseModel`.
  init?(at path: String?) throws(PeftoolError) {
    guard let path else { return nil }
    try self.init(Checkpoint(opening: path).adaptable)
  }
}
