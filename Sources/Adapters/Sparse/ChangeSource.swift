import Checkpoints
import Files
import LinearAlgebra
import Tensors

/// Where whole changes of linear layers come from: an adapter's updates, or two models.
protocol ChangeSource: ArithmeticInputs {
  /// The layers, in the order of the result.
  var layers: [ChangedLayer] { get }
  /// The change of a layer, (out, in), with ‖W‖ of the weight where that was read; nil where there is
  /// no change, or one that is not of its weight alone.
  ///
  /// - Throws: `io`, and `damaged` where a value is not finite.
  func change(
    of place: Int
  ) throws(PeftoolError) -> (change: Matrix<Float>, weightNorm: Double?)?
  /// What is saved whole beside the layers that have changes.
  ///
  /// - Throws: as `change`.
  func saved(beside hasChange: [Bool]) throws(PeftoolError) -> [LowRankAdapter.Saved]
  /// Why there is no adapter where no layer has a change.
  func nothing(beside saved: [LowRankAdapter.Saved]) -> PeftoolError
  /// The model that the adapter is for, by name.
  var baseName: String? { get }
  /// The positions that it is of use with, where they are stretched.
  var positions: StretchedPositions? { get }
  /// PEFT's `task_type`.
  var task: String? { get }
}

/// A linear layer that may have changed.
struct ChangedLayer: Sendable {
  /// The module's path.
  let path: String
  /// The outputs and the inputs.
  let rows: Int
  let columns: Int
  /// The rank that its change may have.
  let rank: Int
  /// The bytes that are read for it.
  let byteCount: Int
}

/// The changes from one model to another.
struct ModelChanges: ChangeSource {
  private let extraction: Extraction

  init(_ extraction: Extraction) { self.extraction = extraction }

  var inputs: [ArithmeticInput] { extraction.inputs }
  var sources: [any TensorSource] { extraction.sources }
  var inputByteCount: Int { extraction.inputByteCount }
  var notes: [String] { extraction.notes }
  var byteCount: Int { extraction.byteCount }
  var adapterDTypes: Set<DType> { [] }
  var baseName: String? { extraction.base.checkpoint.path }
  var positions: StretchedPositions? { extraction.positions }
  var task: String? { extraction.base.task }

  var layers: [ChangedLayer] {
    extraction.plan.modules.map {
      ChangedLayer(
        path: $0.path, rows: $0.base.outputCount, columns: $0.base.inputCount, rank: $0.fullRank,
        byteCount: $0.byteCount)
    }
  }

  func change(
    of place: Int
  ) throws(PeftoolError) -> (change: Matrix<Float>, weightNorm: Double?)? {
    let module = extraction.plan.modules[place]
    // SHiRA has no biases: the module is saved whole.
    if let bias = module.bias, try !bias.tuned.isSame(as: bias.base) { return nil }
    let (change, weightNorm) = try module.tuned.change(from: module.base)
    return change.squaredNorm > 0 ? (change, weightNorm) : nil
  }

  func saved(beside hasChange: [Bool]) throws(PeftoolError) -> [LowRankAdapter.Saved] {
    try extraction.savedWhole(beside: hasChange)
  }

  func nothing(beside saved: [LowRankAdapter.Saved]) -> PeftoolError {
    extraction.nothing(changed: saved)
  }
}

/// The updates s·B·A of an adapter.
struct AdapterChanges: ChangeSource, OperandArithmetic {
  let operands: [(operand: Operand, weight: Double?)]
  let base: BaseModel?
  private var adapter: LowRankAdapter { operands[0].operand.adapter }

  /// Takes an adapter; of its tensors nothing is read.
  ///
  /// - Throws: `unsupported` for what SHiRA has no place for: DoRA, embeddings, convolutions, biases.
  init(_ operand: Operand, base: BaseModel?) throws(PeftoolError) {
    operands = [(operand, 1)]
    self.base = base
    let adapter = operand.adapter
    func refused(_ what: String, _ module: String) -> PeftoolError {
      PeftoolError(
        .unsupported,
        "\(module.printable) \(what): SHiRA has sparse changes of linear layers alone",
        path: operand.path)
    }
    for module in adapter.modules {
      if module.kind != .linear {
        throw refused("is of kind \(module.kind.rawValue)", module.path)
      }
      if base?.isConv1D(module.path) ?? module.isFanInFanOut {
        throw refused("is a Conv1D", module.path)
      }
      if module.magnitude != nil { throw refused("is of DoRA", module.path) }
      if module.bias != nil { throw refused("has a bias of lora_B", module.path) }
    }
    if let bias = adapter.saved.first(where: \.isBias) { throw refused("has a bias", bias.path) }
  }

  var notes: [String] {
    adapter.notes + [operands[0].operand.note(onBase: base)].compactMap(\.self)
  }
  var byteCount: Int { layers.reduce(0) { $0 + $1.byteCount } }
  var baseName: String? { adapter.baseName }
  var positions: StretchedPositions? { adapter.positions }
  var task: String? { adapter.task }

  var layers: [ChangedLayer] {
    adapter.modules.map {
      ChangedLayer(
        path: $0.path, rows: $0.outputCount, columns: $0.inputCount, rank: $0.rank,
        byteCount: $0.byteCount)
    }
  }

  func change(
    of place: Int
  ) throws(PeftoolError) -> (change: Matrix<Float>, weightNorm: Double?)? {
    let term = try adapter.modules[place].term(weight: 1)
    let change = product(Matrix<Float>(term.b), Matrix<Float>(term.a.scaled(by: term.scaling)))
    return change.squaredNorm > 0 ? (change, nil) : nil
  }

  func saved(beside hasChange: [Bool]) -> [LowRankAdapter.Saved] { adapter.saved }

  func nothing(beside saved: [LowRankAdapter.Saved]) -> PeftoolError {
    PeftoolError(
      .different, "changes nothing: every update is zero", path: operands[0].operand.path)
  }
}
