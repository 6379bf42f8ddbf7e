package import Checkpoints
package import Files
import JSON
import Quantization
import Tensors

/// What integer zero points would lose of a change that is one number for each group of a row.
///
/// Exact would be the zero point z − E / scale for a change E; a file of GPTQ or AWQ has the nearest
/// integer from 0 to 15, which is mostly z again.
package struct ZeroPointLoss: Sendable {
  /// ‖change in the file − E‖ / ‖E‖ over all groups of all weights that change.
  package let value: Double

  /// Compares both for the merge of QA-LoRA adapters into what a base's codes stand for.
  ///
  /// Memory: a weight's codes, scales and changes.
  /// - Throws: as `Int4Weight.read` and `LowRank.factors`; `different` where the adapter has smaller
  ///   groups than the base, or these are of inputs in another order.
  package init(
    of plan: MergePlan, weights: [Int4Weight], in base: Checkpoint
  ) throws(PeftoolError) {
    var (lost, whole) = (0.0, 0.0)
    var places: [ExactName: Int4Weight] = [:]
    for weight in weights { places[ExactName(weight.name)] = weight }
    for tensor in plan.tensors where !tensor.changes.isEmpty {
      guard let weight = places[ExactName(tensor.base.info.name)] else { continue }
      guard weight.groupOfInput == nil else {
        throw PeftoolError(
          .different,
          "has its inputs in groups of another order (desc_act), of which the adapter's are none",
          tensor: weight.codes.name, path: base.path)
      }
      let codes = try weight.read(from: base.source)
      let count = codes.outputs * codes.groupCount
      var change = [Float](repeating: 0, count: count)
      for weighted in tensor.changes {
        guard case .lowRank(var low) = weighted.change.update else { continue }
        // A column for each group of the base, of which one of the adapter may have several.
        guard low.columnRepeat % codes.groupSize == 0 else {
          throw low.a.at(
            PeftoolError(
              .different,
              "is for groups of \(low.columnRepeat) inputs, of which the base's of "
                + "\(codes.groupSize) are no parts"))
        }
        low.columnRepeat /= codes.groupSize
        var product = [Float](repeating: 0, count: count)
        try low.factors(Float.self).multiply(
          rows: 0..<codes.outputs, scaling: Float(weighted.weight * low.scaling), into: &product)
        for place in change.indices { change[place] += product[place] }
      }
      let least: Float = weight.layout == .gptq ? 1 : 0
      for place in change.indices {
        let (scale, zero) = (codes.scales[place], codes.shifts[place])
        let wanted = zero - change[place] / scale
        // A zero point of 0 that is there already can stay.
        let new =
          wanted.isNaN
          ? zero : min(15, max(min(least, zero), wanted.rounded(.toNearestOrEven)))
        let error = Double(scale * (zero - new) - change[place])
        lost += error * error
        whole += Double(change[place]) * Double(change[place])
      }
    }
    value = whole > 0 ? (lost / whole).squareRoot() : 0
  }
}
