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
  /// Whether the report has a table of the ranks.
  var showsRanks = false
  /// The path of the recipe, which no output may replace.
  var recipe: String?

  /// The files that are read besides the tensors'.
  private var others: [InputFile] {
    get throws(PeftoolError) {
      guard let recipe else { return [] }
      return [try InputFile(opening: recipe)]
    }
  }

  /// Finds what would go wrong with the output's name.
  ///
  /// - Throws: as `StagedOutput.check`, and what is wrong with the recipe.
  func checkOutput(force: Bool) throws(PeftoolError) {
    try arithmetic.checkOutput(output, apartFrom: others, force: force)
  }

  /// Makes the adapter, and writes a folder of PEFT's.
  ///
  /// - Throws: as `AdapterArithmetic.write`.
  func run(
    _ writing: AdapterWritingOptions, label: String
  ) throws(PeftoolError) -> ArithmeticReport {
    let start = monotonicSeconds()
    let progress = ProgressLine(
      label, totalByteCount: arithmetic.byteCount, isQuiet: writing.quiet)
    let (results, files) = try arithmetic.write(
      to: output, apartFrom: others, as: writing.dtype, force: writing.force,
      threads: writing.threads
    ) { progress.advance(by: $0) }
    progress.finish()
    return ArithmeticReport(
      output: output, inputs: arithmetic.inputs, method: method, results: results,
      showsRanks: showsRanks, inputByteCount: arithmetic.inputByteCount,
      byteCount: files.byteCount, dtypes: files.dtypes,
      dtypesBefore: arithmetic.adapterDTypes, seconds: monotonicSeconds() - start,
      notes: arithmetic.notes + files.notes)
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
