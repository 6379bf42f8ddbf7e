import Adapters
import Checkpoints
import Files
import JSON
import Quantization
import Tensors

/// What a merge has to do with quantization.
enum QuantizedMerge: Sendable {
  /// Nothing: base and result are in 16 or 32 bits.
  case none
  /// The base is quantized, the result is not.
  case dequantized(from: QuantizedType)
  /// The base is quantized, and so is the result, with the same settings.
  case requantized(QuantizedType, weights: [QuantizedWeight])
  /// The base goes through quantization on its way, and the result is not quantized.
  case simulated(QuantizedType, QuantizePlan.Scheme)
  /// The base is not quantized, the result is.
  case quantized(QuantizedType, QuantizePlan.Scheme)

  /// Finds out which it is.
  ///
  /// - Parameters:
  ///   - quantize: what the result is to become.
  ///   - simulate: what the base is to go through.
  ///   - scheme: the settings that were given.
  ///   - rounding: when sums are rounded.
  /// - Throws: `unsupported` where the base does not fit the flags; as `QuantizedWeight.all`.
  init(
    _ base: Checkpoint, quantize: QuantizedType?, simulate: QuantizedType?,
    _ scheme: SchemeOptions, _ rounding: Rounding
  ) throws(PeftoolError) {
    let weights = base.isAdapter || base.kind == .gguf ? [] : try QuantizedWeight.all(in: base)
    guard let before = weights.first.map(QuantizedType.init) else {
      self =
        if let simulate {
          .simulated(simulate, scheme.scheme(simulate))
        } else if let quantize {
          .quantized(quantize, scheme.scheme(quantize))
        } else {
          .none
        }
      return
    }
    func refuse(_ reason: String) -> PeftoolError {
      PeftoolError(.unsupported, "is quantized (\(before.rawValue)); \(reason)", path: base.path)
    }
    if simulate != nil {
      throw refuse(
        "--simulate is for a base that is not: what this one's codes stand for is what "
          + "an adapter trained on it has seen")
    }
    guard let quantize else {
      self = .dequantized(from: before)
      return
    }
    guard quantize == before, !scheme.isGiven else {
      throw refuse(
        "--quantize \(before.rawValue) keeps its settings, for others merge without --quantize and "
          + "quantize the result")
    }
    guard rounding == .once else {
      throw refuse(
        "--rounding \(rounding.rawValue) is for sums in the base's dtype, and before they are "
          + "quantized again they have none")
    }
    self = .requantized(before, weights: weights)
  }

  /// The model that adapters are merged into.
  ///
  /// - Throws: as `Checkpoint.dequantized` and `SimulatedSource`.
  func base(
    _ base: Checkpoint, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) -> Checkpoint {
    switch self {
    case .none, .quantized: return base
    case .dequantized: return try base.dequantized()
    // PEFT merges into the f32 that LLM.int8's codes stand for; so is int4 merged into here.
    case .requantized: return try base.dequantized(otherDType: .f32)
    case .simulated(_, let scheme):
      var options = QuantizePlan.Options()
      options.scheme = scheme
      let plan = try QuantizePlan(base, options)
      return base.viewed(
        through: try SimulatedSource(plan, threads: threads, progress: progress),
        config: try base.modelConfig)
    }
  }

  /// The plan that quantizes the merged model; nil where it is not quantized.
  ///
  /// - Throws: as `QuantizePlan`.
  func quantization(
    of merged: MergePlan, base: Checkpoint, shardByteCount: Int?
  ) throws(PeftoolError) -> QuantizePlan? {
    var options = QuantizePlan.Options()
    if let shardByteCount { options.shardByteCount = shardByteCount }
    switch self {
    case .none, .dequantized, .simulated: return nil
    case .requantized(_, let weights):
      return try QuantizePlan(
        requantizing: merged, of: base, before: weights, shardByteCount: options.shardByteCount)
    case .quantized(_, let scheme):
      options.scheme = scheme
      let model = base.viewed(
        through: MergedSource(merged), config: merged.config ?? merged.base.config)
      return try QuantizePlan(model, options)
    }
  }

  /// The weights whose sums stay in f32.
  var singles: Set<ExactName> {
    guard case .requantized(_, let weights) = self else { return [] }
    return Set(weights.map { ExactName($0.name) })
  }

  /// What was done, for a person; nil where it is nothing.
  var text: String? {
    switch self {
    case .none: nil
    case .dequantized(let type):
      "merged into what the \(type.rawValue) codes stand for; the result is not quantized"
    case .requantized(let type, _):
      "merged into what the \(type.rawValue) codes stand for, and quantized again as before"
    case .simulated(let type, _):
      "merged into what \(type.rawValue) makes of the base; the result is not quantized"
    case .quantized(let type, _):
      "merged into the base as it is, then quantized to \(type.rawValue)"
    }
  }

  /// What the user should know: that no merge into group-wise INT4 is exact.
  var note: String? {
    let reason =
      "a LoRA gives each weight a change of its own, which 16 values a group cannot hold"
    return switch self {
    case .dequantized(from: .int4):
      "\(reason): an exact result is no longer int4. --quantize int4 codes it again, and loses most "
        + "of a small change; the adapter beside the base, as generate has it, loses nothing"
    case .requantized(.int4, _):
      "not exact: \(reason), and most changes are smaller than half a step between two. Exact are the "
        + "merge without --quantize, in 16 or 32 bits, and the adapter beside the base"
    default: nil
    }
  }

  /// The same in a word, for a program.
  var name: String {
    switch self {
    case .none: "none"
    case .dequantized: "dequantized"
    case .requantized: "requantized"
    case .simulated: "simulated"
    case .quantized: "quantized"
    }
  }
}

extension QuantizedType {
  /// What a weight has become.
  fileprivate init(_ weight: QuantizedWeight) {
    self =
      switch weight.form {
      case .rows: .int8
      case .groups: .int4
      case .blocks(let state, _): state.code == .nf4 ? .nf4 : .fp4
      }
  }
}
