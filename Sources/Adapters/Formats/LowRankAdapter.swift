package import Checkpoints
import Files
import Tensors

/// An adapter of low-rank pairs, whatever the format that it lies in: what all formats share.
///
/// W' = W + s·B·A for each module, or (m / ‖W + s·B·A‖) · (W + s·B·A) with the norm of each output.
package struct LowRankAdapter: Sendable {
  /// One module's pair.
  package struct Module: Sendable {
    /// The module's path in the running model.
    package let path: String
    /// What layer it is.
    package let kind: Kind
    /// A, (rank, in…).
    let a: AdapterTensor
    /// B, (out, rank…).
    let b: AdapterTensor
    /// DoRA's m, (out).
    let magnitude: AdapterTensor?
    /// The bias of B (`lora_bias`), (out): s times it is added to the layer's own.
    let bias: AdapterTensor?
    /// Whether the weight lies (in, out), where the base does not tell: PEFT's `fan_in_fan_out`.
    var isFanInFanOut = false
    /// The names of the tensors that the file has for it, where they are others than its parts'.
    var storedNames: [String]?
    /// The factor s.
    package let scaling: Double
    /// s times the rank, as far as the format knows it without a rounding of its own.
    let alpha: Double

    /// The rows of A.
    package var rank: Int { a.shape[0] }
    /// The rows of B.
    var outputCount: Int { b.shape[0] }
    /// The tensors that it has.
    var parts: [AdapterTensor] { [a, b] + [magnitude, bias].compactMap(\.self) }
  }

  /// The layers that have pairs.
  package enum Kind: String, Sendable {
    /// W (out, in).
    case linear
    /// W (in, out), in for the vocabulary.
    case embedding
    /// W (out, in, k…).
    case convolution
  }

  /// A parameter's full values, which take the place of the base's.
  struct Saved: Sendable {
    /// The path of the module that has it.
    let path: String
    /// Its name in the module: `weight` or `bias`.
    let parameter: String
    /// The values.
    let tensor: AdapterTensor
    /// Whether it is the bias of a module with a pair, and not part of a module saved whole.
    let isBias: Bool
  }

  /// The modules in the order of the file.
  package let modules: [Module]
  /// What is saved whole: PEFT's `modules_to_save`, and biases.
  var saved: [Saved] = []
  /// Whether the pair of the input embedding is that of the output's, too: PEFT's
  /// `ensure_weight_tying`.
  var ensuresWeightTying = false
  /// Whether each module has a magnitude.
  package let usesDoRA: Bool
  /// The model that it was made for, by name.
  package var baseName: String?
  /// The positions that it was trained with, where they are stretched.
  var positions: StretchedPositions?
  /// PEFT's `task_type`, where the format tells it.
  var task: String?
  /// What the user should know of what was read.
  package var notes: [String] = []

  /// Puts modules together.
  ///
  /// - Throws: `unsupported` where some have magnitudes and others not, and `damaged` where there
  ///   are none.
  init(_ modules: [Module]) throws(PeftoolError) {
    guard let first = modules.first else {
      throw PeftoolError(.damaged, "an adapter without tensors")
    }
    usesDoRA = first.magnitude != nil
    for module in modules where (module.magnitude != nil) != usesDoRA {
      let (with, without) = usesDoRA ? (first, module) : (module, first)
      throw PeftoolError(
        .unsupported,
        "\(with.path.printable) has a magnitude (DoRA) and \(without.path.printable) has none, "
          + "expected it of all modules or of none")
    }
    self.modules = modules
  }

  /// Refuses ranks whose products of factors with each other would be beyond all memory.
  ///
  /// - Throws: `unsupported` with the module.
  func checkRanks() throws(PeftoolError) {
    guard let module = modules.first(where: { $0.rank > Self.maximumRank }) else { return }
    throw PeftoolError(
      .unsupported,
      "\(module.path.printable) has rank \(module.rank), expected \(Self.maximumRank) at most",
      path: module.a.stored.path)
  }

  /// The largest rank that arithmetic takes.
  static let maximumRank = 16_384

  /// What the tensors of pairs are read from; all have one source.
  package var sources: [any TensorSource] { modules.prefix(1).map(\.a.stored.source) }

  /// The parameters of all modules.
  package var parameterCount: Int {
    (modules.flatMap(\.parts) + saved.map(\.tensor))
      .reduce(0) { $0 + $1.stored.info.elementCount }
  }

  /// Looks for every module in a base.
  ///
  /// - Throws: `different` with the nearest names where one is not there.
  func checkModules(in base: BaseModel) throws(PeftoolError) {
    let names = ModuleNames(base)
    let missing = modules.filter { names.tensor($0.path, "weight") == nil }
    guard let first = missing.first else { return }
    let others = missing.count > 1 ? ", nor \(missing.count - 1) more of \(modules.count)" : ""
    throw PeftoolError(
      .different,
      "the base has no module \(first.path.printable)\(others); nearest: "
        + names.nearest(to: "\(first.path).weight").map(\.printable).joined(separator: ", "))
  }
}

extension LowRankAdapter.Module {
  /// Puts a pair together and checks that its shapes fit each other.
  ///
  /// - Throws: `damaged` with the tensor's name.
  init(
    _ path: String, kind: LowRankAdapter.Kind? = nil, a: AdapterTensor, b: AdapterTensor,
    magnitude: AdapterTensor?, bias: AdapterTensor? = nil,
    scaling: (_ rank: Int) throws(PeftoolError) -> (Double, alpha: Double)
  ) throws(PeftoolError) {
    self.path = path
    self.kind = kind ?? (a.shape.count > 2 ? .convolution : .linear)
    for tensor in [a, b] + [magnitude, bias].compactMap(\.self) where !tensor.dtype.isComputable {
      throw tensor.stored.at(
        PeftoolError(
          .unsupported,
          "is \(tensor.dtype.rawValue), expected F64, F32, F16, BF16, F8_E4M3 or F8_E5M2"))
    }
    for tensor in [a, b] {
      guard tensor.shape.count >= 2, tensor.stored.info.elementCount > 0 else {
        throw tensor.stored.at(
          PeftoolError(
            .damaged, "has shape \(tensor.stored.shape.shapeText), expected a matrix of the pair"))
      }
    }
    guard kind != .embedding || a.shape.count == 2, b.shape.count == a.shape.count,
      b.shape[1] == a.shape[0],
      b.shape.dropFirst(2).allSatisfy({ $0 == 1 })
    else {
      throw b.stored.at(
        PeftoolError(
          .damaged,
          "has shape \(b.stored.shape.shapeText), which does not fit "
            + "'\(a.stored.info.name.printable)' of \(a.stored.shape.shapeText)"))
    }
    for vector in [magnitude, bias].compactMap(\.self)
    where vector.stored.info.elementCount != b.shape[0] {
      throw vector.stored.at(
        PeftoolError(
          .damaged,
          "has shape \(vector.stored.shape.shapeText), expected a number for each of the "
            + "\(b.shape[0]) outputs"))
    }
    self.a = a
    self.b = b
    self.magnitude = magnitude?.reshaped([b.shape[0]])
    self.bias = bias?.reshaped([b.shape[0]])
    (self.scaling, alpha) = try scaling(a.shape[0])
  }
}
