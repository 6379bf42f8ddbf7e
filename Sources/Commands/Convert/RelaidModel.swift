import Adapters
import Checkpoints
import Files
import JSON
import Reports
import Tensors

/// A model in group-wise INT4 in another layout.
struct RelaidModel {
  /// The view of it, with its settings.
  let model: Checkpoint
  /// What the user should know.
  let notes: [String]

  /// Looks at a model.
  ///
  /// - Throws: `unsupported` for a model that is not in INT4, or in groups of several sizes, and in
  ///   hqq for codes of an embedding; as `QuantizedWeight.all` and `RelaidSource`.
  init(_ checkpoint: Checkpoint, as layout: Int4Layout) throws(PeftoolError) {
    let weights = try QuantizedWeight.all(in: checkpoint).compactMap(\.groups)
    guard let first = weights.first else {
      throw PeftoolError(
        .unsupported, "has no weights in int4, which --layout lays out anew", path: checkpoint.path)
    }
    if let other = weights.first(where: { $0.groupSize != first.groupSize }) {
      throw PeftoolError(
        .unsupported,
        "is in groups of \(other.groupSize), '\(first.name.printable)' in groups of "
          + "\(first.groupSize), and --layout wants one size for all", tensor: other.codes.name,
        path: checkpoint.source.files[other.codes.fileIndex].path)
    }
    let scheme = GroupScheme(
      layout: layout, groupSize: first.groupSize, isSymmetric: false, scaleDType: .f32)
    let skip = layout == .hqq ? try Self.skipped(beside: weights, in: checkpoint) : nil
    let source = try RelaidSource(checkpoint.source, weights: weights, as: layout)
    guard case .object(let members)? = try checkpoint.modelConfig?.splitQuantization().rest else {
      throw PeftoolError(.different, "has no config.json", path: checkpoint.path)
    }
    model = checkpoint.viewed(
      through: source, config: .object(members + scheme.settings(skip: skip)))
    notes = [
      "\(weights.count.text(of: "weight")) kept their codes and scales, in F32, as \(layout.rawValue)"
    ]
  }

  /// The linear modules that are in no codes, which HQQ's readers have to know.
  ///
  /// - Throws: `unsupported` where the embedding is in codes; as `LinearModules`.
  private static func skipped(
    beside weights: [Int4Weight], in checkpoint: Checkpoint
  ) throws(PeftoolError) -> [String] {
    let base = try BaseModel(checkpoint.dequantized())
    if let embedding = base.inputEmbedding?.name,
      let weight = weights.first(where: { $0.name.isExactly(embedding) })
    {
      throw PeftoolError(
        .unsupported,
        "is an embedding in codes, of which hqq has none: 'peftool dequantize' decodes the model",
        tensor: weight.codes.name,
        path: checkpoint.source.files[weight.codes.fileIndex].path)
    }
    let coded = Set(weights.map { ExactName($0.name) })
    let linear = try LinearModules(of: base, include: [], exclude: [])
    // The head is not among those skipped where transformers would skip it by itself.
    let modules = linear.weights.map(\.module) + linear.skipped + ["lm_head"]
    return Set(modules).sorted().filter { !coded.contains(ExactName($0 + ".weight")) }
  }
}
