import Files
import Tensors

extension ChangeResolver {
  /// SHiRA: entries that are added to a linear layer's weight, of which it has r·(in + out).
  func resolveSparse(
    _ module: Adapter.Module, _ values: StoredTensor, _ indices: StoredTensor,
    into result: inout Result
  ) throws(PeftoolError) {
    guard configuration.method == .shira else {
      throw values.at(
        PeftoolError(
          .different, "belongs to SHiRA, the configuration says \(configuration.method.name)"))
    }
    let target = try target(module.path, "weight", for: values)
    let shape = shape(of: target, in: result)
    guard shape.count == 2, base.isConv1D(module.path) != true else {
      throw values.at(
        PeftoolError(
          .unsupported,
          "is for '\(target.name.printable)' of shape \(shape.shapeText), which is no linear "
            + "layer's: SHiRA has no others"))
    }
    let (sum, isSumTooLarge) = shape[0].addingReportingOverflow(shape[1])
    let (count, isTooLarge) = configuration.rank.multipliedReportingOverflow(by: sum)
    guard !isSumTooLarge, !isTooLarge, values.shape == [count] else {
      throw misfit(
        values, "of \(configuration.rank)·(\(shape[1]) + \(shape[0])) numbers", target)
    }
    guard indices.shape == [2, count] else {
      throw misfit(indices, "of shape \([2, count].shapeText)", target)
    }
    let change = SparseChange(
      values: values, indices: indices, rowCount: shape[0], columnCount: shape[1])
    // Where the entries are only their values tell.
    _ = try change.entries(Float.self)
    try add(Change(update: .sparse(change)), to: target, from: values, into: &result)
  }
}
