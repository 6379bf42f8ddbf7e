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
      case (let a?, let b?): try Self.areEqual(a, b)
      default: false
      }
    let isUpdateSame =
      switch (input.change.update, output.value.change.update) {
      case (nil, nil): true
      case (.lowRank(let a)?, .lowRank(let b)?): try Self.areTransposed(a, b)
      case (.replaceRows(let a, let rows)?, .replaceRows(let b, let others)?) where rows == others:
        try Self.areEqual(a, b)
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

  /// Whether two tensors have the same elements, a block of each in memory at a time.
  static func areEqual(
    _ a: StoredTensor, _ b: StoredTensor
  ) throws(PeftoolError) -> Bool {
    guard a.shape == b.shape, a.dtype == b.dtype else { return false }
    var first = Block(byteCount: 1 << 20)
    var second = Block(byteCount: 1 << 20)
    var start = 0
    while start < a.info.byteCount {
      let end = min(start + first.byteCount, a.info.byteCount)
      var into = first.mutableBytes(end - start)
      try a.source.read(a.info, bytes: start..<end, into: &into)
      var other = second.mutableBytes(end - start)
      try b.source.read(b.info, bytes: start..<end, into: &other)
      // Both spans have the same length.
      let isSame = unsafe first.bytes(end - start).withUnsafeBytes { a in
        unsafe second.bytes(end - start).withUnsafeBytes { unsafe a.elementsEqual($0) }
      }
      if !isSame { return false }
      start = end
    }
    return true
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
