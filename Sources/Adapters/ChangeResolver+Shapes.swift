import Files
import JSON
import Tensors

// Whether an adapter's tensors fit the base's, and how they lie to them.
extension ChangeResolver {
  /// How the factors lie to a weight: the architecture decides, then shapes, then the flag.
  func layout(
    _ module: Adapter.Module, _ a: StoredTensor, _ b: StoredTensor, _ target: BaseModel.Tensor,
    _ shape: [Int]
  ) throws(PeftoolError) -> LowRank.Layout {
    guard a.shape.count == shape.count, b.shape.count == shape.count, shape.count >= 2 else {
      throw misfit(a, "for a tensor of shape \(shape.shapeText)", target)
    }
    if shape.count > 2 {
      guard b.shape.dropFirst(2).allSatisfy({ $0 == 1 }), b.shape[0] == shape[0],
        a.shape.dropFirst().elementsEqual(shape.dropFirst())
      else { throw misfit(a, "for a convolution of shape \(shape.shapeText)", target) }
      return .plain
    }
    let fitsPlain = shape == [b.shape[0], a.shape[1]]
    let fitsTransposed = shape == [a.shape[1], b.shape[0]]
    switch (fitsPlain, fitsTransposed) {
    case (true, true):
      return base.isConv1D(module.path) ?? configuration.isFanInFanOut ? .transposed : .plain
    case (true, false): return .plain
    case (false, true) where base.isConv1D(module.path) ?? true: return .transposed
    default:
      throw misfit(
        a,
        "that makes \(shape.shapeText) with \(b.info.name.printable) of \(b.shape.shapeText)",
        target)
    }
  }

  /// DoRA's update, or LoRA's, as the configuration says.
  func withMagnitude(
    _ d: LowRank, _ magnitude: StoredTensor?, _ target: BaseModel.Tensor
  ) throws(PeftoolError) -> Change.Update {
    guard configuration.usesDoRA else {
      if let magnitude {
        throw magnitude.at(
          PeftoolError(.different, "belongs to DoRA, the configuration has use_dora false"))
      }
      return .lowRank(d)
    }
    let magnitude = try required(magnitude, "lora_magnitude_vector", beside: d.a)
    let count = d.b.rowCount
    let isVector =
      magnitude.shape == [count]
      || magnitude.shape.count == target.stored.shape.count
        && magnitude.shape == [1, count] + magnitude.shape.dropFirst(2).map { _ in 1 }
    guard isVector else { throw misfit(magnitude, "with \(count) magnitudes", target) }
    return .dora(
      d, magnitude: magnitude, d.layout == .plain ? .rows : .columns(repeated: 1))
  }

  /// Compares the ranks of a pair with each other and with the configuration.
  func checkRank(
    _ module: String, _ a: StoredTensor, _ b: StoredTensor
  ) throws(PeftoolError) {
    let rank = a.rowCount
    guard a.shape.count >= 2, b.shape.count >= 2, b.shape[1] == rank else {
      throw a.at(
        PeftoolError(
          .different,
          "has shape \(a.shape.shapeText) and its lora_B \(b.shape.shapeText), of one rank expected"
        ))
    }
    let expected: Int
    if configuration.method == .adaLoRA {
      expected = configuration.keptRank(of: module) ?? configuration.rank
    } else {
      expected = try configuration.rank(of: module)
    }
    guard rank == expected else {
      throw a.at(
        PeftoolError(.different, "has rank \(rank), the configuration gives rank \(expected)"))
    }
  }

  /// The shape that an update applies to: the adapter's own values may have resized it.
  func shape(of target: BaseModel.Tensor, in result: Result) -> [Int] {
    result.changes[ExactName(target.name)]?.change.own?.shape ?? target.stored.shape
  }

  func required(
    _ tensor: StoredTensor?, _ name: String, beside other: StoredTensor
  ) throws(PeftoolError) -> StoredTensor {
    guard let tensor else {
      throw other.at(PeftoolError(.different, "has no \(name) beside it"))
    }
    return tensor
  }

  func misfit(
    _ tensor: StoredTensor, _ expected: String, _ target: BaseModel.Tensor
  ) -> PeftoolError {
    tensor.at(
      PeftoolError(
        .different,
        "has shape \(tensor.shape.shapeText), expected one \(expected), "
          + "for '\(target.name.printable)'"))
  }
}
