import Files
import JSON
import Tensors

// QA-LoRA, whose A sees the means of groups of inputs.
extension ChangeResolver {
  /// A change that is one number for each group of a row: of a weight's numbers, or where the base is
  /// seen as it lies in MLX's INT4 files of the offsets of its groups.
  ///
  /// W' = W + s·c/g · B·A with each column of A for the g inputs of its group, where PEFT's c is the
  /// number of groups (`lora/variants.py`, `QALoraLinearVariant`). A weight's own groups may be parts
  /// of the adapter's, which then have one number for several offsets.
  func resolvePooled(
    _ module: Adapter.Module, _ a: StoredTensor, _ b: StoredTensor, groupSize: Int,
    into result: inout Result
  ) throws(PeftoolError) {
    let weight = try target(module.path, "weight", for: a)
    try checkRank(module.path, a, b)
    let codes = weight.stored.dtype == .u32 ? names.tensor(module.path, "biases") : nil
    let target = codes ?? weight
    let shape = shape(of: target, in: result)
    let (inputs, overflow) = (a.shape.last ?? 0).multipliedReportingOverflow(by: groupSize)
    // Eight codes a word, of a tensor that has them: too few for the number to overflow.
    let found = codes == nil ? shape.last : weight.stored.columnCount &* 8
    guard a.shape.count == 2, b.shape.count == 2, shape.count == 2, !overflow, inputs > 0,
      found == inputs, shape[0] == b.shape[0], base.isConv1D(module.path) != true
    else {
      throw misfit(
        a,
        "for groups of \(groupSize) inputs, with lora_B the change of "
          + "\([shape.first ?? 0, found ?? 0].shapeText)", weight)
    }
    guard shape[1] % a.shape[1] == 0 else {
      throw a.at(
        PeftoolError(
          .different,
          "is for groups of \(groupSize) inputs, of which the base's of \(inputs / shape[1]) are no "
            + "parts: such a change is no offset of '\(weight.name.printable)'"))
    }
    let scaling = try configuration.scaling(of: module.path, keptRank: a.rowCount)
    let d = LowRank(
      a: a, b: b, rank: a.rowCount,
      scaling: AdapterConfiguration.pooledScaling(
        scaling, columns: a.shape[1], groupSize: groupSize), layout: .plain,
      columnRepeat: shape[1] / a.shape[1])
    try add(Change(update: .lowRank(d)), to: target, from: a, into: &result)
  }
}
