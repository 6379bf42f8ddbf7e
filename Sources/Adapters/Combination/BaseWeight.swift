import Checkpoints
import Files
import Tensors

/// A model's weight that an adapter changes or is made of, and how it lies.
struct BaseWeight: Sendable {
  let stored: StoredTensor
  /// Whether it lies (in, out), as Conv1D and embeddings have it.
  let isTransposed: Bool

  init(stored: StoredTensor, isTransposed: Bool) {
    self.stored = stored
    self.isTransposed = isTransposed
  }

  /// Looks for it; of values nothing is read.
  ///
  /// - Parameters:
  ///   - path: where it is, if that is not the module's path.
  ///   - shape: (out, in), if that is not the module's.
  /// - Throws: `different` where the base has no such module, or one of another shape;
  ///   `unsupported` for a dtype without arithmetic.
  init(
    of module: LowRankAdapter.Module, at path: String? = nil, shape: [Int]? = nil,
    in base: BaseModel, _ names: ModuleNames
  ) throws(PeftoolError) {
    let path = path ?? module.path
    guard let stored = names.tensor(path, "weight")?.stored else {
      if base.isTied, BaseModel.isOutputEmbedding(path) {
        throw PeftoolError(
          .different,
          "has no \(path.printable) of its own: it is tied to the input embedding",
          path: base.checkpoint.path)
      }
      throw PeftoolError(
        .different,
        "has no module \(path.printable); nearest: "
          + names.nearest(to: "\(path).weight").map(\.printable).joined(separator: ", "),
        path: base.checkpoint.path)
    }
    isTransposed = module.kind == .embedding || (base.isConv1D(path) ?? module.isFanInFanOut)
    let expected = shape ?? [module.outputCount, module.inputCount]
    let isOfItsKind =
      module.kind == .convolution
      ? Array(stored.shape.dropFirst()) == Array(module.a.shape.dropFirst())
      : stored.shape.count == 2
    guard isOfItsKind,
      [stored.rowCount, stored.columnCount] == (isTransposed ? expected.reversed() : expected)
    else {
      let wanted = shape.map { "expected \($0.shapeText)" }
      throw stored.at(
        PeftoolError(
          .different,
          "has shape \(stored.shape.shapeText), "
            + (wanted ?? "the adapter changes \(module.shapesText)")))
    }
    guard stored.dtype.isComputable else {
      throw stored.at(
        PeftoolError(
          .unsupported,
          "is \(stored.dtype.rawValue), expected F64, F32, F16, BF16, F8_E4M3 or F8_E5M2"))
    }
    self.stored = stored
  }
}

extension LowRankAdapter.Module {
  /// What it changes.
  var shapesText: String {
    (kind == .embedding ? "an " : "a ")
      + "\(kind.rawValue) of \(([b.shape[0]] + a.shape.dropFirst()).shapeText)"
  }
}
