import Adapters
import Checkpoints
import Files
import JSON
import Reports
import Tensors

/// How two adapters differ: by their updates, and by the tensors that belong to none.
///
/// Peak memory: that of `AdapterComparison`, then 2 MB a thread.
struct AdapterDifference {
  let left: Side
  let right: Side
  let tolerance: DiffTolerance
  /// The modules that one has alone, or that are of other kinds or shapes.
  let comparison: AdapterComparison
  /// The modules that both have, the worst first.
  let modules: [DeltaComparison]
  /// What belongs to no pair, and the settings.
  let others: CheckpointDifference

  /// One of the adapters.
  struct Side {
    let checkpoint: Checkpoint
    let format: AdapterFormat
    /// Its low-rank pairs.
    let adapter: LowRankAdapter

    /// The tensors that the comparison of updates takes; all where every tensor belongs to a pair.
    fileprivate var tensorsOfPairs: Set<ExactName> {
      Set(
        (format == .peft ? adapter.tensorNames : checkpoint.tensors.map(\.name)).map(ExactName.init)
      )
    }
  }

  /// What rounding the factors of an update to F32 leaves open, and some more.
  static let defaultRelativeTolerance = 1e-6

  /// Compares two open adapters.
  ///
  /// - Throws: as `AdapterComparison.run` and `CheckpointDifference`.
  init(
    _ left: Side, _ right: Side, base: BaseModel?, within tolerance: DiffTolerance,
    ofElements elementTolerance: DiffTolerance, threads: Int, isQuiet: Bool
  ) throws(PeftoolError) {
    (self.left, self.right, self.tolerance) = (left, right, tolerance)
    let comparison = try AdapterComparison(left.adapter, right.adapter, base: base)
    let progress = ProgressLine(
      "comparing", totalByteCount: comparison.byteCount, isQuiet: isQuiet)
    let found = try comparison.run(threads: threads) { progress.advance(by: $0) }
    progress.finish()
    self.comparison = comparison
    let limit = tolerance.ofUpdates
    // Names decide between equals, so that the order is the same on every run.
    modules = found.sorted { a, b in
      let (first, second) = (a.isWithin(limit), b.isWithin(limit))
      if first != second { return second }
      if a.difference * b.norms.right != b.difference * a.norms.right {
        return a.difference * b.norms.right > b.difference * a.norms.right
      }
      return a.path.precedesByBytes(b.path)
    }
    let omitted = CheckpointDifference.Omission(
      left: left.tensorsOfPairs, right: right.tensorsOfPairs,
      settings: left.format != right.format)
    others = try CheckpointDifference(
      left.checkpoint, right.checkpoint, within: elementTolerance, threads: threads,
      isQuiet: isQuiet, without: omitted)
  }
}

extension AdapterDifference {
  /// Settings that say how factors make an update: where updates are compared they are in them.
  private static let settingsOfFactors: Set<String> = [
    "r", "lora_alpha", "alpha", "use_rslora", "rank_pattern", "alpha_pattern", "lora_bias",
    "use_qalora", "qalora_group_size",
  ]

  /// Whether one adapter is of DoRA and the other is not, and it is not whole changes that count.
  var isOfTwoMethods: Bool {
    left.adapter.usesDoRA != right.adapter.usesDoRA && !comparison.isOfWholeChanges
  }

  /// Whether settings differ that are not in the updates.
  var hasOtherSettings: Bool {
    // Methods differ in nearly all of their settings, and what they make is compared.
    if others.settings.contains(where: { $0.key == "peft_type" }) {
      return others.settings.contains { Self.settingsOfAnyMethod.contains($0.key) }
    }
    return others.settings.contains {
      !Self.settingsOfFactors.contains($0.key)
        && !(comparison.isOfWholeChanges && $0.key == "use_dora")
    }
  }

  /// Settings that mean the same whatever the method.
  private static let settingsOfAnyMethod: Set<String> = [
    "base_model_name_or_path", "task_type", "modules_to_save",
  ]

  /// The modules that f64 can tell apart.
  var differing: [DeltaComparison] { modules.filter { !$0.isEqual } }

  /// The modules that the tolerance does not cover.
  var intolerableCount: Int {
    modules.count { !$0.isEqual && !$0.isWithin(tolerance.ofUpdates) }
  }

  /// What the answer is.
  var verdict: CheckpointDifference.Verdict {
    let isOneSided = !comparison.onlyInLeft.isEmpty || !comparison.onlyInRight.isEmpty
    if isOneSided || !comparison.misfits.isEmpty || isOfTwoMethods || hasOtherSettings
      || intolerableCount > 0 || others.isDifferentButForSettings
    {
      return .different
    }
    return differing.isEmpty && others.differing.isEmpty ? .identical : .withinTolerance
  }
}

extension DiffTolerance {
  /// The same of whole updates.
  var ofUpdates: DeltaComparison.Tolerance { .init(absolute: absolute, relative: relative) }
}
