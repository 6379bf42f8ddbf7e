import Checkpoints
import Files
import JSON
import Tensors

// Tied embeddings: one parameter that is the input embedding and the output's.
extension ChangeResolver {
  /// Makes one change of two that are the same at both ends of tied embeddings.
  ///
  /// So `ensure_weight_tying` saves them: an own tensor twice, or a low-rank update once as
  /// embedding and once, transposed, as linear layer. What differs stays, and unties the ends.
  /// - Throws: `io`, `damaged` where the values to be compared cannot be read.
  func shareTiedEnds(_ result: inout Result) throws(PeftoolError) {
    guard base.isTied, let inputName = base.inputEmbedding?.name,
      var input = result.changes[ExactName(inputName)],
      let output = result.changes.filter({ isOutput($0.value.target) })
        .min(by: { $0.key.string.precedesByBytes($1.key.string) })
    else { return }
    let isOwnSame =
      switch (input.change.own, output.value.change.own) {
      case (nil, nil): true
      case (let a?, let b?): try a.isSame(as: b)
      default: false
      }
    let isUpdateSame =
      switch (input.change.update, output.value.change.update) {
      case (nil, nil): true
      case (.lowRank(let a)?, .lowRank(let b)?): try Self.areTransposed(a, b)
      case (.replaceRows(let a, let rows)?, .replaceRows(let b, let others)?) where rows == others:
        try a.isSame(as: b)
      default: false
      }
    guard isOwnSame, isUpdateSame else { return }
    input.change.isOwnShared = true
    input.change.isUpdateShared = true
    result.changes[ExactName(inputName)] = input
    result.changes[output.key] = nil
  }

  /// Whether a tensor is the output embedding, be it one of the file or the shared one.
  func isOutput(_ target: BaseModel.Tensor) -> Bool {
    target.name == base.outputEmbedding?.name
      || BaseModel.isOutputEmbedding(String(target.name.dropLast(".weight".count)))
  }

  /// Whether the update of a linear layer is that of an embedding: A' = Bᵀ and B' = Aᵀ.
  private static func areTransposed(
    _ embedding: LowRank, _ linear: LowRank
  ) throws(PeftoolError) -> Bool {
    guard embedding.layout == .transposed, linear.layout == .plain,
      embedding.rank == linear.rank, embedding.scaling == linear.scaling
    else { return false }
    let a = try embedding.factors(Float.self)
    let b = try linear.factors(Float.self)
    return a.left == b.left && a.right == b.right
  }
}
