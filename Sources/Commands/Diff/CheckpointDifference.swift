import Checkpoints
import Files
import JSON
import Reports
import Tensors

/// How two checkpoints differ, tensor by tensor.
///
/// Holds both headers and a few figures a tensor; peak memory of the pass is 2 MB a thread.
struct CheckpointDifference: Sendable {
  let left: Checkpoint
  let right: Checkpoint
  let tolerance: DiffTolerance
  /// Names that only one side has, in that side's order.
  private(set) var onlyInLeft: [String] = []
  private(set) var onlyInRight: [String] = []
  /// Output layers that one side does not store, since its configuration ties them: they were
  /// compared with the embedding that stands for them.
  private(set) var tied: [(name: String, embedding: String, isAbsentInLeft: Bool)] = []
  /// Pairs of other shapes, or of dtypes that cannot be compared.
  private(set) var incomparable: [TensorPair] = []
  /// Pairs that are not equal, the worst first.
  private(set) var differing: [(pair: TensorPair, difference: TensorDifference)] = []
  /// Pairs whose elements are all equal.
  private(set) var equalCount = 0
  /// Pairs whose dtypes differ, by both dtypes.
  private(set) var dtypeChanges: [(left: DType, right: DType, count: Int)] = []
  /// Of two adapters the settings that change what their tensors mean.
  private(set) var settings: [(key: String, left: JSON, right: JSON)] = []

  /// Why adapters are compared tensor by tensor, where that was not asked for.
  var note: String?

  /// What is not compared.
  struct Omission {
    /// Names of tensors of each side.
    var left: Set<ExactName> = []
    var right: Set<ExactName> = []
    /// Whether the settings are left out.
    var settings = false
  }

  /// The answer.
  enum Verdict: String, Sendable {
    case identical
    case withinTolerance = "within tolerance"
    case different
  }

  /// Compares two open checkpoints.
  ///
  /// - Throws: `io` and `damaged` as reading does, `different` where a file changed meanwhile.
  init(
    _ left: Checkpoint, _ right: Checkpoint, within tolerance: DiffTolerance, threads: Int,
    isQuiet: Bool = false, without omitted: Omission = Omission()
  ) throws(PeftoolError) {
    (self.left, self.right, self.tolerance) = (left, right, tolerance)
    let pairs = try pairTensors(without: omitted)
    if !omitted.settings {
      settings = Self.differentSettings(try left.adapterConfig, try right.adapterConfig)
    }

    let progress = ProgressLine(
      "comparing", totalByteCount: pairs.reduce(0) { $0 + $1.comparedByteCount },
      isQuiet: isQuiet)
    let found = try differences(
      of: pairs, in: left.source, and: right.source, within: tolerance, threads: threads,
      progress: progress)
    progress.finish()
    for (pair, difference) in zip(pairs, found) {
      if let difference, difference.differingCount == 0 {
        equalCount += 1
      } else if let difference {
        differing.append((pair, difference))
      } else {
        incomparable.append(pair)
      }
    }
    // Names decide between equals, so that the order is the same on every run.
    differing.sort { a, b in
      if a.difference.isWorse(than: b.difference) { return true }
      if b.difference.isWorse(than: a.difference) { return false }
      return a.pair.name.precedesByBytes(b.pair.name)
    }
    countDTypes(pairs)
  }

  /// What the answer is: no difference, none that the tolerance does not cover, or others.
  var verdict: Verdict {
    if isDifferentButForSettings || !settings.isEmpty { return .different }
    return differing.isEmpty ? .identical : .withinTolerance
  }

  /// Whether tensors are different.
  var isDifferentButForSettings: Bool {
    let isOneSided = !onlyInLeft.isEmpty || !onlyInRight.isEmpty
    return isOneSided || !incomparable.isEmpty || intolerableTensorCount > 0
  }

  /// The tensors with elements that the tolerance does not cover.
  var intolerableTensorCount: Int {
    differing.count { $0.difference.intolerableCount > 0 }
  }

  private mutating func pairTensors(
    without omitted: Omission
  ) throws(PeftoolError) -> [TensorPair] {
    var pairs: [TensorPair] = []
    for tensor in left.tensors where !omitted.left.contains(ExactName(tensor.name)) {
      if let other = right[tensor.name] {
        pairs.append(TensorPair(tensor.name, tensor, other))
      } else if let embedding = try right.embedding(standingFor: tensor) {
        tied.append((tensor.name, embedding.name, false))
        pairs.append(TensorPair(tensor.name, tensor, embedding))
      } else {
        onlyInLeft.append(tensor.name)
      }
    }
    for tensor in right.tensors
    where left[tensor.name] == nil && !omitted.right.contains(ExactName(tensor.name)) {
      if let embedding = try left.embedding(standingFor: tensor) {
        tied.append((tensor.name, embedding.name, true))
        pairs.append(TensorPair(tensor.name, embedding, tensor))
      } else {
        onlyInRight.append(tensor.name)
      }
    }
    return pairs
  }

  private mutating func countDTypes(_ pairs: [TensorPair]) {
    for pair in pairs where pair.left.dtype != pair.right.dtype {
      let place = dtypeChanges.firstIndex {
        $0.left == pair.left.dtype && $0.right == pair.right.dtype
      }
      if let place {
        dtypeChanges[place].count += 1
      } else {
        dtypeChanges.append((pair.left.dtype, pair.right.dtype, 1))
      }
    }
  }

  /// The fields of `adapter_config.json` that decide what the tensors do to a model.
  private static let meaningfulKeys = [
    "peft_type", "r", "init_r", "lora_alpha", "alpha", "use_rslora", "use_dora", "rank_pattern",
    "alpha_pattern", "lora_bias", "target_parameters", "trainable_token_indices", "token_indices",
    "layer_replication", "feedforward_modules", "kasa_config", "use_bdlora", "use_qalora",
    "qalora_group_size",
  ]

  private static func differentSettings(
    _ left: JSON?, _ right: JSON?
  ) -> [(key: String, left: JSON, right: JSON)] {
    guard let left, let right else { return [] }
    return meaningfulKeys.compactMap { key in
      let (a, b) = (left[key] ?? .null, right[key] ?? .null)
      return a.asSetting == b.asSetting ? nil : (key, a, b)
    }
  }
}

extension Checkpoint {
  /// The embedding that this checkpoint's model uses for an output layer which it does not store.
  ///
  /// `lm_head.weight` may be absent where there is a `config.json` that does not say that
  /// `tie_word_embeddings` is false; a single file tells nothing of tying.
  fileprivate func embedding(standingFor output: TensorInfo) throws(PeftoolError) -> TensorInfo? {
    guard output.name == "lm_head.weight" || output.name.hasSuffix(".lm_head.weight"), !isAdapter,
      let config = try config, ModelFacts(config).isTied != false
    else { return nil }
    let names = [
      "embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight",
      "tok_embeddings.weight",
    ]
    let candidates = tensors.filter { tensor in
      tensor.shape == output.shape
        && names.contains { tensor.name == $0 || tensor.name.hasSuffix("." + $0) }
    }
    return candidates.count == 1 ? candidates[0] : nil
  }
}

extension JSON {
  /// The value as a setting: what switches nothing on is the same as nothing, and 1 and 1.0 are
  /// one number.
  fileprivate var asSetting: JSON {
    switch self {
    case .bool(false), .array([]), .object([]): .null
    case .number(let text): Double(text).map { .number($0) } ?? self
    default: self
    }
  }
}
