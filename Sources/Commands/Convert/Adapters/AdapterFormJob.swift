import Adapters
import Files
import JSON
import LinearAlgebra
import Reports
import Tensors

/// An adapter of one method made one of another: LoRA, or DoRA.
struct AdapterFormJob: ConvertJob {
  private let arithmetic: Combination
  private let form: CombinationSettings.Form
  private let path: String
  /// What numbers are rounded to; nil for F32.
  private let dtype: DType?

  /// Plans it.
  ///
  /// - Throws: as `Operand` and `Combination`; `unsupported` where it is of that method already, or
  ///   a rank is missing.
  init(
    _ input: String, to path: String, _ form: CombinationSettings.Form, base: String?,
    rank: RankChoice?, isExact: Bool, dtype: DType?
  ) throws(PeftoolError) {
    try OpenBLAS.prepare()
    let base = try BaseModel(at: base)
    let operand = try Operand(opening: input, base: base)
    let usesDoRA = operand.adapter.usesDoRA
    guard form == .lora || !usesDoRA else {
      throw PeftoolError(.unsupported, "is of DoRA already", path: input)
    }
    guard form == .dora || !usesDoRA || rank != nil else {
      throw PeftoolError(
        .unsupported, "is of DoRA, which LoRA only comes near to: --rank R or --energy E",
        path: input)
    }
    var settings = CombinationSettings()
    settings.form = form
    settings.rank = rank
    settings.decomposition.isExact = isExact
    arithmetic = try Combination([operand], weights: [1], base: base, settings)
    self.form = form
    self.path = path
    self.dtype = dtype
  }

  var byteCount: Int { arithmetic.byteCount }

  func run(
    force: Bool, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> ConvertSummary {
    let (results, files) = try arithmetic.write(
      to: path, as: dtype, force: force, threads: threads, progress: progress)
    let kept = ModuleResult.keptEnergy(of: results)
    return ConvertSummary(
      facts: [
        ("adapter", "as \(form == .dora ? "DoRA" : "LoRA")"),
        ("modules", results.count.groupedText),
        ("rank", results.map(\.rank).countsText { "\($0)" } ?? "none"),
        ("kept energy", kept?.percentText ?? "none, as the change is zero"),
      ],
      members: [
        .init("to", .string(form.rawValue)), .init("keptEnergy", .number(kept)),
        .init("modules", .array(results.map(\.json))),
      ], byteCount: files.byteCount, notes: arithmetic.notes + files.notes)
  }
}
