import Files
import JSON
import Tensors

// `target_parameters`: LoRA on parameters that are not a module's weight, the fused experts of
// mixture-of-experts models among them (PEFT's `ParamWrapper`).
extension ChangeResolver {
  /// The parameters of a module that the configuration targets, in the order in which PyTorch
  /// registers them where that is known, else as they stand in the configuration.
  func targetParameters(of module: String) -> [String] {
    var parameters: [String] = []
    for target in configuration.targetParameters {
      let parameter = target.lastComponent(after: ".")
      let path = target.dropLast(parameter.count + (parameter.count < target.count ? 1 : 0))
      // A bare name, as PEFT makes of "all-linear", targets every module that has the parameter.
      let isHere =
        path.isEmpty
        ? hasParameter(module, parameter) : module == path || module.hasSuffix(".\(path)")
      if isHere, !parameters.contains(parameter) { parameters.append(parameter) }
    }
    guard Set(parameters) == Set(Self.registrationOrder) else { return parameters }
    return Self.registrationOrder
  }

  /// Whether a module of the base has a parameter, fused or expert by expert.
  private func hasParameter(_ module: String, _ parameter: String) -> Bool {
    names.tensor(module, parameter) != nil || unfusedParts(module, parameter) != nil
  }

  /// How transformers registers the experts' parameters.
  private static let registrationOrder = ["gate_up_proj", "down_proj"]

  /// One of a module's targeted parameters.
  ///
  /// The keys do not tell which: wrappers are nested, the first registered parameter innermost.
  func resolveParameter(
    _ module: Adapter.Module, _ a: StoredTensor, _ b: StoredTensor, among parameters: [String],
    into result: inout Result
  ) throws(PeftoolError) {
    let isOrderKnown = parameters.count == 1 || parameters == Self.registrationOrder
    let parameter: String
    if isOrderKnown {
      let place = parameters.count - 1 - module.depth
      guard parameters.indices.contains(place) else {
        throw a.at(
          PeftoolError(
            .different,
            "is wrapped \(module.depth) times, target_parameters has \(parameters.count) for it"))
      }
      parameter = parameters[place]
    } else {
      var fitting: [String] = []
      for parameter in parameters {
        let changes = try? changes(module.path, parameter, a, b, result)
        if changes != nil { fitting.append(parameter) }
      }
      guard fitting.count == 1 else {
        throw a.at(
          PeftoolError(
            .unsupported,
            "could be for \(parameters.map(\.printable).joined(separator: " or ")): "
              + "their order is not known, and \(fitting.count) of them fit"))
      }
      parameter = fitting[0]
    }
    for (target, d) in try changes(module.path, parameter, a, b, result) {
      try add(Change(update: .lowRank(d)), to: target, from: a, into: &result)
    }
  }

  /// The updates of one parameter, or of the tensors that the file has in its place.
  private func changes(
    _ module: String, _ parameter: String, _ a: StoredTensor, _ b: StoredTensor, _ result: Result
  ) throws(PeftoolError) -> [(BaseModel.Tensor, LowRank)] {
    let path = "\(module).\(parameter)"
    let rank = try configuration.rank(of: path)
    guard a.shape.count == 2, b.shape.count == 2, a.shape[0] == b.shape[1],
      a.shape[0] > 0, a.shape[0] % rank == 0
    else {
      throw a.at(
        PeftoolError(
          .different,
          "has shape \(a.shape.shapeText) and its lora_B \(b.shape.shapeText), "
            + "expected a multiple of rank \(rank)"))
    }
    let scaling = try configuration.scaling(of: path, keptRank: rank)
    let count = a.shape[0] / rank
    func update(_ layout: LowRank.Layout) -> LowRank {
      LowRank(
        a: a, b: b, rank: rank, scaling: scaling, layout: layout, isRoundedByPEFT: true)
    }
    if let target = names.tensor(module, parameter) {
      let shape = shape(of: target, in: result)
      let (inputs, outputs) = (a.shape[1], b.shape[0])
      if shape == [outputs, inputs], count == 1 { return [(target, update(.plain))] }
      let fitsPlain = shape == [count, outputs, inputs]
      let fitsTransposed = shape == [count, inputs, outputs]
      guard fitsPlain || fitsTransposed else {
        throw misfit(a, "for a parameter of shape \(shape.shapeText)", target)
      }
      let isTransposed =
        fitsTransposed
        && (!fitsPlain || base.modelType.map(Self.transposedModelTypes.contains) == true)
      return [(target, update(.experts(count, isTransposed: isTransposed)))]
    }
    let parts = try unfused(module, parameter, count: count, a, b)
    return parts.map { target, expert, rows in
      (target, update(.expert(expert, of: count, rows: rows)))
    }
  }

  /// The model types whose fused experts lie (E, in, out), as `is_transposed` of their classes in
  /// transformers 5 tells PEFT; of others that lie so, Llama 4 say, PEFT does not know it either.
  private static let transposedModelTypes = ["gpt_oss", "aria_text", "openai_privacy_filter"]

  /// What a fused parameter is called, where a file has it expert by expert: its parts, stacked
  /// along the outputs.
  private static let unfusedNames: [String: [[String]]] = [
    "gate_up_proj": [["w1", "w3"], ["gate_proj", "up_proj"]],
    "down_proj": [["w2"], ["down_proj"]],
  ]

  /// What the parts of a fused parameter are called in a base that has it expert by expert.
  private func unfusedParts(_ module: String, _ parameter: String) -> [String]? {
    Self.unfusedNames[parameter, default: []].first {
      names.tensor("\(module).0.\($0[0])", "weight") != nil
    }
  }

  /// The tensors of the single experts, with the rows of the fused output that each has.
  private func unfused(
    _ module: String, _ parameter: String, count: Int, _ a: StoredTensor, _ b: StoredTensor
  ) throws(PeftoolError) -> [(BaseModel.Tensor, expert: Int, rows: Range<Int>)] {
    guard let partNames = unfusedParts(module, parameter) else {
      _ = try target(module, parameter, for: a)
      return []
    }
    guard names.tensor("\(module).\(count).\(partNames[0])", "weight") == nil else {
      throw a.at(PeftoolError(.different, "is for \(count) experts, the base has more"))
    }
    var parts: [(BaseModel.Tensor, expert: Int, rows: Range<Int>)] = []
    for expert in 0..<count {
      var row = 0
      for name in partNames {
        let target = try target("\(module).\(expert).\(name)", "weight", for: a)
        let shape = target.stored.shape
        guard shape.count == 2, shape[1] == a.shape[1] else {
          throw misfit(a, "for an expert of shape \(target.stored.shape.shapeText)", target)
        }
        parts.append((target, expert, row..<row + shape[0]))
        row += shape[0]
      }
      guard row == b.rowCount else {
        throw b.at(
          PeftoolError(
            .different,
            "gives \(b.rowCount) rows, expert \(expert) of '\(module.printable)' has \(row)"))
      }
    }
    return parts
  }
}
