import Adapters
import Checkpoints
import Files
import JSON
import Reports

/// A model as GGUF's Q4_1 takes it: one in group-wise INT4 by its codes, so that nothing is quantized
/// anew.
struct CodesForGGUF {
  /// The model, or a view of it.
  private(set) var model: Checkpoint
  /// Whether it has codes, beside which all other matrices keep their types.
  private(set) var hasCodes = false
  /// What the user should know.
  private(set) var notes: [String] = []

  /// Looks at a model.
  ///
  /// - Throws: as `QuantizedWeight.all` and `Q4v1Source`.
  init(_ checkpoint: Checkpoint) throws(PeftoolError) {
    model = checkpoint
    let weights = try QuantizedWeight.all(in: checkpoint).compactMap(\.groups)
    guard !weights.isEmpty else { return }
    hasCodes = true
    model = checkpoint.viewed(
      through: try Q4v1Source(checkpoint.source, weights: weights),
      config: try checkpoint.modelConfig?.splitQuantization().rest)
    var rounded = 0
    for weight in weights where try !weight.fitsF16(in: checkpoint.source) { rounded += 1 }
    notes.append("\(weights.count.text(of: "weight")) kept their codes")
    if rounded > 0 {
      notes.append(
        "of \(rounded.text(of: "weight")) scales or offsets were rounded to F16, which Q4_1 has")
    }
  }
}
