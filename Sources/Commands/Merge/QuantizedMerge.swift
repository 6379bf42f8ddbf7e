import Adapters
import Checkpoints
import Files
import JSON
import Quantization
import Reports
import Tensors

/// What a merge has to do with quantization.
enum QuantizedMerge: Sendable {
  /// Nothing: base and result are in 16 or 32 bits.
  case none
  /// The base is quantized, the result is not; whether the adapters are QA-LoRA's alone.
  case dequantized(from: QuantizedType, isPooled: Bool)
  /// The base is in INT4, and so is the result: QA-LoRA's changes are added to its offsets, of a type.
  case offsets([Int4Weight], DType)
  /// The same of a base of zero points, which is refused when the loss is known.
  case zeroPoints([Int4Weight])
  /// The base is quantized, and so is the result, with the same settings; whether the adapters are
  /// QA-LoRA's alone.
  case requantized(QuantizedType, weights: [QuantizedWeight], isPooled: Bool)
  /// The base goes through quantization on its way, and the result is not quantized.
  case simulated(QuantizedType, QuantizePlan.Scheme)
  /// The base is not quantized, the result is.
  case quantized(QuantizedType, QuantizePlan.Scheme)

  /// Finds out which it is.
  ///
  /// - Parameter command: the flags.
  /// - Throws: `unsupported` where the base does not fit the flags; as `QuantizedWeight.all`.
  init(
    _ base: Checkpoint, _ adapters: [Adapter], _ command: MergeCommand
  ) throws(PeftoolError) {
    let (quantize, simulate, scheme) = (command.quantize, command.simulate, command.scheme)
    let weights = base.isAdapter || base.kind == .gguf ? [] : try QuantizedWeight.all(in: base)
    guard let before = weights.first.map(QuantizedType.init) else {
      if command.requantize || command.offsetDtype != nil {
        let flag = command.requantize ? "--requantize" : "--offset-dtype"
        throw PeftoolError(
          .unsupported, "is not quantized, and \(flag) is for a base that is", path: base.path)
      }
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
    let isPooled = adapters.allSatisfy { $0.configuration.pooledGroupSize != nil }
    let keepsCodes =
      isPooled && before == .int4 && !command.requantize && command.dtype == nil
      && [nil, .int4].contains(quantize) && !scheme.isGiven
    guard keepsCodes || command.offsetDtype == nil else {
      throw refuse(
        "--offset-dtype is for adapters of QA-LoRA that are merged into int4 without a loss")
    }
    guard keepsCodes || quantize != nil || command.requantize else {
      self = .dequantized(from: before, isPooled: isPooled)
      return
    }
    let rounding = command.rounding
    guard rounding == .once else {
      throw refuse(
        "--rounding \(rounding.rawValue) is for sums in the base's dtype, and "
          + (keepsCodes ? "here offsets are summed" : "before they are coded again they have none"))
    }
    if keepsCodes {
      self = try Self.keepingCodes(weights, command.offsetDtype ?? .f32)
      return
    }
    guard quantize ?? before == before, !scheme.isGiven else {
      throw refuse(
        "--quantize \(before.rawValue) keeps its settings, for others "
          + (isPooled && before == .int4
            ? "'peftool convert --layout mlx' of the base comes before the merge, which is exact then"
            : "merge without --quantize and quantize the result"))
    }
    self = .requantized(before, weights: weights, isPooled: isPooled)
  }

  /// What becomes of a base in INT4 whose codes stay as they are.
  ///
  /// - Throws: `unsupported` where a type does not hold the scales.
  private static func keepingCodes(
    _ weights: [QuantizedWeight], _ dtype: DType
  ) throws(PeftoolError) -> QuantizedMerge {
    let groups = weights.compactMap(\.groups)
    guard groups.allSatisfy({ $0.layout == .mlx }) else { return .zeroPoints(groups) }
    for weight in groups where dtype != .f32 && dtype != weight.scales.dtype {
      throw PeftoolError(
        .unsupported,
        "is \(weight.scales.dtype.rawValue), which \(dtype.rawValue) does not hold: --offset-dtype "
          + "is F32, or that of the scales", tensor: weight.scales.name)
    }
    return .offsets(groups, dtype)
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
    case .zeroPoints: return try base.dequantized(otherDType: .f32)
    // As it lies: offsets are tensors, to which low-rank changes can be added like to any.
    case .offsets:
      return base.viewed(
        through: base.source, config: try base.modelConfig?.splitQuantization().rest)
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
    case .none, .dequantized, .simulated, .offsets, .zeroPoints: return nil
    case .requantized(_, let weights, _):
      return try QuantizePlan(
        requantizing: merged, of: base, before: weights, shardByteCount: options.shardByteCount)
    case .quantized(_, let scheme):
      options.scheme = scheme
      let model = base.viewed(
        through: MergedSource(merged), config: merged.config ?? merged.base.config)
      return try QuantizePlan(model, options)
    }
  }

  /// Refuses a merge into zero points.
  ///
  /// - Throws: `unsupported` with the loss; as `ZeroPointLoss`.
  func check(_ plan: MergePlan, base: Checkpoint) throws(PeftoolError) {
    guard case .zeroPoints(let weights) = self, let layout = weights.first?.layout else { return }
    guard layout != .hqq else {
      throw PeftoolError(
        .unsupported,
        "is in int4 as hqq, whose zero points nothing is merged into: 'peftool convert --layout mlx' "
          + "keeps its codes, the merge into that is exact, and --layout hqq makes HQQ's of the "
          + "result; --dtype F16 writes 16 bits, and 'generate --adapter' loses nothing",
        path: base.path)
    }
    let loss = try ZeroPointLoss(of: plan, weights: weights, in: base)
    throw PeftoolError(
      .unsupported,
      "is in int4 as \(layout.rawValue), whose integer zero points would lose "
        + "\((100 * loss.value).fixed(1)) % of the adapter's change: --requantize codes the merged "
        + "weights again, --dtype F16 writes them in 16 bits, 'generate --adapter' loses nothing, and "
        + "into what 'peftool convert --layout mlx' makes of the base, of the same codes, the merge "
        + "is exact",
      path: base.path)
  }

  /// The types of the scales and offsets of codes that stay.
  var dtypes: [ExactName: DType] {
    guard case .offsets(let weights, let dtype) = self else { return [:] }
    var dtypes: [ExactName: DType] = [:]
    for name in weights.flatMap({ [$0.scales.name, $0.shifts.name] }) {
      dtypes[ExactName(name)] = dtype
    }
    return dtypes
  }

  /// What the result's configuration says of codes that stay.
  ///
  /// - Throws: as `Checkpoint.modelConfig`.
  func settings(of base: Checkpoint) throws(PeftoolError) -> [JSON.Member] {
    guard case .offsets = self else { return [] }
    return try base.modelConfig?.splitQuantization().settings ?? []
  }

  /// The weights whose sums stay in f32.
  var singles: Set<ExactName> {
    guard case .requantized(_, let weights, _) = self else { return [] }
    return Set(weights.map { ExactName($0.name) })
  }

  /// What was done, for a person; nil where it is nothing.
  var text: String? {
    switch self {
    case .none: nil
    case .dequantized(let type, _):
      "merged into what the \(type.rawValue) codes stand for; the result is not quantized"
    case .offsets(_, let dtype):
      "added to the offsets of int4, in \(dtype.rawValue); codes and scales stay"
    case .zeroPoints: nil
    case .requantized(let type, _, _):
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
    case .dequantized(from: .int4, isPooled: false):
      "\(reason): an exact result is no longer int4. --requantize codes it again, loses most of a "
        + "small change and tells how much; the adapter beside the base, as generate has it, loses "
        + "nothing, and one of QA-LoRA (finetune --method qa-lora) fits"
    case .requantized(.int4, _, isPooled: true):
      "not exact: most changes are smaller than half a step between two codes. Exact are the merge "
        + "that moves the offsets, into a base as mlx (convert --layout) and without --requantize, "
        + "that into 32 bits (--dtype F32), and the adapter beside the base"
    case .requantized(.int4, _, isPooled: false):
      "not exact: \(reason), and most changes are smaller than half a step between two. Exact are the "
        + "merge without --quantize and --requantize in 32 bits (--dtype F32), in 16 but for rounding, "
        + "and the adapter beside the base"
    default: nil
    }
  }

  /// Whether weights that were in codes are coded again, which loses of the change.
  var isCodedAgain: Bool { if case .requantized = self { true } else { false } }

  /// The same in a word, for a program.
  var name: String {
    switch self {
    case .none: "none"
    case .dequantized: "dequantized"
    case .offsets: "offsets"
    case .zeroPoints: "zero points"
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
