import Checkpoints
import Files
import JSON
import Tensors

/// The tensors of a base and of what was made of it, each with its other.
struct TensorPairs: Sendable {
  /// A parameter before and after.
  struct Pair: Sendable {
    /// Its name in the base.
    let name: String
    /// The path of its module, and its name there.
    let module: String
    let parameter: String
    let base: StoredTensor
    let tuned: StoredTensor

    /// Refuses a parameter that has changed its shape.
    ///
    /// - Throws: `different`.
    func checkShape() throws(PeftoolError) {
      guard base.shape == tuned.shape else {
        throw tuned.at(
          PeftoolError(
            .different,
            "has shape \(tuned.shape.shapeText), in \(base.path.printable) \(base.shape.shapeText): "
              + "no adapter makes one of the other; --exclude leaves its module out"))
      }
    }

    /// Routers, which are parameters in classes of their own, and the heads that PEFT saves whole
    /// by itself.
    private static let wholeNames = ["gate", "router", "classifier", "score", "qa_outputs"]

    /// What layer a pair of factors would be for; nil where none can be.
    func kind(isEmbedding: Bool) -> LowRankAdapter.Kind? {
      guard parameter == "weight", base.shape.count >= 2, !base.shape.contains(0),
        base.dtype.isComputable, tuned.dtype.isComputable,
        !Self.wholeNames.contains(module.lastComponent(after: "."))
      else { return nil }
      if base.shape.count > 2 { return .convolution }
      return isEmbedding ? .embedding : .linear
    }
  }

  /// In the order of the base; an output embedding that one of them alone stores comes last.
  private(set) var all: [Pair] = []

  /// What models keep beside their parameters, and not all of them write.
  private static let buffers = [
    ".attn.masked_bias", ".rotary_emb.inv_freq", ".position_ids", ".token_type_ids",
  ]

  /// Pairs the tensors by name; where the models begin their names otherwise, as transformers does.
  ///
  /// Shapes may differ: that is looked at when it is known what is left out.
  /// - Throws: `different` where one is missing.
  init(base: BaseModel, tuned: BaseModel) throws(PeftoolError) {
    let tunedNames = ModuleNames(tuned)
    var found: Set<ExactName> = []
    for tensor in base.tensors where !Self.isBuffer(tensor) {
      let (module, parameter) = tensor.name.moduleAndParameter
      let isOutput = BaseModel.isOutputEmbedding(module) && parameter == "weight"
      if let other = tuned[tensor.name] ?? tunedNames.tensor(module, parameter) {
        found.insert(ExactName(other.name))
        // Of a tied model the output embedding is only a copy.
        if isOutput, base.isTied, tuned.isTied { continue }
        try append(tensor.name, tensor.stored, other.stored)
      } else if isOutput, tuned.isTied, let input = tuned.inputEmbedding {
        if !base.isTied { try append(tensor.name, tensor.stored, input.stored) }
      } else {
        throw Self.missing(tensor, in: tuned, tunedNames)
      }
    }
    for tensor in tuned.tensors where !Self.isBuffer(tensor) {
      guard !found.contains(ExactName(tensor.name)) else { continue }
      guard BaseModel.isOutputEmbedding(tensor.name.moduleAndParameter.module), base.isTied,
        let input = base.inputEmbedding
      else { throw Self.missing(tensor, in: base, ModuleNames(base)) }
      if !tuned.isTied { try append(tensor.name, input.stored, tensor.stored) }
    }
  }

  private mutating func append(
    _ name: String, _ base: StoredTensor, _ tuned: StoredTensor
  ) throws(PeftoolError) {
    let (module, parameter) = name.moduleAndParameter
    guard !module.isEmpty else {
      throw tuned.at(
        PeftoolError(.unsupported, "is in no module, and adapters change modules"))
    }
    all.append(Pair(name: name, module: module, parameter: parameter, base: base, tuned: tuned))
  }

  private static func missing(
    _ tensor: BaseModel.Tensor, in other: BaseModel, _ names: ModuleNames
  ) -> PeftoolError {
    tensor.stored.at(
      PeftoolError(
        .different,
        "is not in \(other.checkpoint.path.printable); nearest: "
          + names.nearest(to: tensor.name).map(\.printable).joined(separator: ", ")))
  }

  private static func isBuffer(_ tensor: BaseModel.Tensor) -> Bool {
    let name = ".\(tensor.name)"
    // GPT-2's mask, (1, 1, length, length), has the name of a bias.
    return buffers.contains(where: name.hasSuffix)
      || name.hasSuffix(".attn.bias") && tensor.stored.shape.count == 4
  }
}

extension String {
  /// A parameter's name in two: the path of its module, and what the module calls it.
  fileprivate var moduleAndParameter: (module: String, parameter: String) {
    guard let dot = lastIndex(of: ".") else { return ("", self) }
    return (String(self[..<dot]), String(self[index(after: dot)...]))
  }
}
