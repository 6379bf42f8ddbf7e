package import Checkpoints
package import Files
package import Tensors

/// What arithmetic is made of.
package protocol ArithmeticInputs: Sendable {
  /// What it is made of.
  var inputs: [ArithmeticInput] { get }
  /// All that is read, which no output may replace.
  var sources: [any TensorSource] { get }
  /// The bytes of the files of tensors that the result may be compared with.
  var inputByteCount: Int { get }
  /// What the user should know.
  var notes: [String] { get }
  /// The bytes of the tensors that are read.
  var byteCount: Int { get }

  /// The dtypes of the adapters that are read, where adapters are.
  var adapterDTypes: Set<DType> { get }
}

/// What makes one adapter of one or of several, or of two models.
package protocol AdapterArithmetic: ArithmeticInputs {
  /// Makes the adapter as PEFT has it, with computed numbers rounded to a dtype; of each module that
  /// was read there is a result.
  ///
  /// - Throws: as `LowRankArithmetic.run`.
  func files(
    as dtype: DType, threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> (files: AdapterFiles, results: [ModuleResult])
}

/// Arithmetic whose result is an adapter of low-rank pairs.
package protocol LowRankArithmetic: AdapterArithmetic {
  /// Makes the adapter; of each module that was read there is a result.
  ///
  /// - Parameters:
  ///   - dtype: F32, BF16 or F16: what computed numbers are rounded to, once, to nearest even.
  ///   - progress: is told of bytes read, from any thread.
  /// - Throws: `io`, `damaged` where a value is not finite, `different` where a result is too large
  ///   for the dtype, `unsupported` where a decomposition does not converge or nothing is left.
  func run(
    as dtype: DType, threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> (adapter: LowRankAdapter, results: [ModuleResult])
}

extension LowRankArithmetic {
  /// The files of the adapter that `run` makes.
  package func files(
    as dtype: DType, threads: Int, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> (files: AdapterFiles, results: [ModuleResult]) {
    let (adapter, results) = try run(as: dtype, threads: threads, progress: progress)
    var files = PEFTAdapter.files(for: adapter)
    files.notes = adapter.notes + files.notes
    return (files, results)
  }
}

/// A path that arithmetic reads.
package struct ArithmeticInput: Sendable {
  /// What it is: `adapter`, `base`, `tuned`, `from` or `to`.
  package let role: String
  /// The path that the user gave.
  package let path: String
  /// The factor on its whole change; nil where that differs by module.
  package let weight: Double?
}

/// What is made of adapters.
package protocol OperandArithmetic: ArithmeticInputs {
  /// The adapters that are read, each with its weight in the result.
  ///
  /// A weight is nil where it differs by module.
  var operands: [(operand: Operand, weight: Double?)] { get }
  /// The model that was given with them.
  var base: BaseModel? { get }
}

extension OperandArithmetic {
  /// The dtypes of the adapters' pairs.
  package var adapterDTypes: Set<DType> {
    Set(operands.flatMap(\.operand.adapter.modules).flatMap(\.parts).map(\.dtype))
  }

  /// The adapters.
  package var inputs: [ArithmeticInput] {
    operands.map { ArithmeticInput(role: "adapter", path: $0.operand.path, weight: $0.weight) }
  }

  /// The adapters' tensors, and the base's.
  package var sources: [any TensorSource] {
    operands.flatMap(\.operand.adapter.sources) + [base?.checkpoint.source].compactMap(\.self)
  }

  /// The bytes of the adapters' files of tensors.
  package var inputByteCount: Int {
    operands.flatMap(\.operand.adapter.sources).flatMap(\.files).reduce(0) { $0 + $1.byteCount }
  }
}
