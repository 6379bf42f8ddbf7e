import Checkpoints
import Files
import JSON
import Tensors

/// What becomes of a parameter that adapters save whole: W + Σ w·(S − W).
///
/// An adapter that does not save it leaves W there. One alone with a weight of 1 is S itself, in its own
/// dtype; of several W counts 1 − Σw times, and is not needed where that is 0 but for rounding. Sums
/// are f64, rounded once. Memory: the values of all of them, when it is read.
struct SavedSum: Sendable {
  let path: String
  let parameter: String
  let isBias: Bool
  private let parts: [(tensor: AdapterTensor, weight: Double)]
  /// W, and how often it counts.
  private let base: (stored: StoredTensor, weight: Double)?

  /// How far weights that sum to 1 may be from it, as 0.1 ten times is.
  private static let rounding = 1e-12

  /// Plans the sums of all parameters that contributions save.
  ///
  /// - Throws: `different` where shapes differ, or the base has no such parameter; `unsupported`
  ///   where a base is needed and there is none.
  static func all(
    of contributions: [Contribution], base: BaseModel?
  ) throws(PeftoolError) -> [SavedSum] {
    let names = base.map { ModuleNames($0) }
    var sums: [SavedSum] = []
    var known: Set<ExactName> = []
    let places = contributions.map { contribution in
      Dictionary(
        contribution.operand.adapter.saved.map { ($0.name, $0) },
        uniquingKeysWith: { first, _ in first })
    }
    for contribution in contributions {
      for saved in contribution.operand.adapter.saved
      where known.insert(saved.name).inserted {
        var parts: [(tensor: AdapterTensor, weight: Double)] = []
        for (other, named) in zip(contributions, places) {
          guard let same = named[saved.name] else { continue }
          guard same.tensor.shape == saved.tensor.shape else {
            throw same.tensor.stored.at(
              PeftoolError(
                .different,
                "has shape \(same.tensor.shape.shapeText), in \(contribution.operand.path.printable) "
                  + saved.tensor.shape.shapeText))
          }
          let weight = other.weight(of: saved.path, .linear)
          if weight != 0 { parts.append((same.tensor, weight)) }
        }
        guard !parts.isEmpty else { continue }
        sums.append(try SavedSum(saved, parts, in: base, names))
      }
    }
    return sums
  }

  private init(
    _ saved: LowRankAdapter.Saved, _ parts: [(tensor: AdapterTensor, weight: Double)],
    in base: BaseModel?, _ names: ModuleNames?
  ) throws(PeftoolError) {
    path = saved.path
    parameter = saved.parameter
    isBias = saved.isBias
    self.parts = parts
    let rest = 1 - parts.reduce(0) { $0 + $1.weight }
    let size = parts.reduce(1) { $0 + $1.weight.magnitude }
    guard rest.magnitude > Self.rounding * size else {
      self.base = nil
      return
    }
    guard let base, let names else {
      throw saved.tensor.stored.at(
        PeftoolError(
          .unsupported, "is saved whole, and weighted only with the base's: --base MODEL"))
    }
    let isSharedOutput =
      base.isTied && BaseModel.isOutputEmbedding(path) && base.outputEmbedding == nil
    guard
      let own = names.tensor(path, parameter) ?? (isSharedOutput ? base.inputEmbedding : nil),
      own.stored.shape == saved.tensor.shape, own.stored.dtype.isComputable
    else {
      throw saved.tensor.stored.at(
        PeftoolError(
          .different,
          "is saved whole, and the base has no '\(path.printable).\(parameter.printable)' of that "
            + "shape to weight it with"))
    }
    self.base = (own.stored, rest)
  }

  /// The values that the result saves.
  func saved(in tensors: inout ComputedTensors, as dtype: DType) -> LowRankAdapter.Saved {
    var tensor = parts[0].tensor
    if parts.count > 1 || base != nil {
      let info = tensors.append("\(path).\(parameter)", shape: tensor.shape) {
        () throws(PeftoolError) in
        try sum().rounded(to: dtype)
      }
      tensor = AdapterTensor(info, in: tensors)
    }
    return LowRankAdapter.Saved(
      path: path, parameter: parameter, tensor: tensor, isBias: isBias)
  }

  private func sum() throws(PeftoolError) -> [Double] {
    var sum = [Double](repeating: 0, count: parts[0].tensor.shape.reduce(1, *))
    func add(_ values: [Double], times weight: Double) {
      var span = sum.mutableSpan
      Double.addScaled(values.span, by: weight, to: &span, count: values.count)
    }
    if let base { add(try base.stored.values(Double.self), times: base.weight) }
    for part in parts { add(try part.tensor.values(), times: part.weight) }
    return sum
  }
}

extension LowRankAdapter.Saved {
  /// The parameter's full name.
  fileprivate var name: ExactName { ExactName("\(path).\(parameter)") }
}
