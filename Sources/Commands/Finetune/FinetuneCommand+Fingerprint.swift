import Checkpoints
import Examples
import Files
import JSON
import Training

// What a step depends on: a run that goes on does so with all of it as it was.
extension FinetuneCommand {
  /// The settings by their names, with checksums of the model and of the data.
  ///
  /// - Throws: `io`; as `method`.
  func fingerprint(
    model: ModelFingerprint, _ data: TokenExamples, _ evaluationData: TokenExamples?,
    day: String?, _ settings: TrainingRun.Settings, stepCount: Int
  ) throws(PeftoolError) -> JSON {
    var members: [JSON.Member] = [.init("model", .string(model.text))]
    members += adapter.settings
    members += ranks.settings
    members += adaLoRA.settings
    members += galore.settings
    members += longTexts.settings
    members += weights.settings
    members += [
      .init("data", try Self.checksum(of: data)), .init("examples", .number(data.count)),
      .init(
        "eval_data",
        try evaluationData.map { (data) throws(PeftoolError) in try Self.checksum(of: data) }
          ?? .null),
      .init("day", day.map { .string($0) } ?? .null),
      .init("packing", .bool(self.data.packing)),
      .init("max_length", self.data.maxLength.map { .number($0) } ?? .null),
      .init("group_by_length", .bool(self.data.groupByLength)),
      .init("batch_size", .number(settings.rowsPerBatch)),
      .init("gradient_accumulation", .number(settings.accumulation)),
      .init("steps", .number(stepCount)),
    ]
    return .object(try members + training.settings(method(stepCount: stepCount)))
  }

  private static func checksum(of data: TokenExamples) throws(PeftoolError) -> JSON {
    var hash = try Checksum()
    // Any bytes may be read as bytes.
    unsafe hash.add(data.ids.span.bytes)
    unsafe hash.add(data.labels.span.bytes)
    unsafe hash.add(data.offsets.span.bytes)
    return .string(hash.value.checksumText)
  }
}

extension AdapterDesignOptions {
  fileprivate var settings: [JSON.Member] {
    let strings: (String?) -> JSON = { $0.map { .string($0) } ?? .null }
    let numbers: (Double?) -> JSON = { $0.map { .number($0) } ?? .null }
    return [
      .init("method", .string(method.rawValue)),
      .init("rank", searchesRanks ? .string("auto") : .number(usedRank)),
      .init("sparsity", numbers(sparsity)), .init("alpha", numbers(alpha)),
      .init("dropout", numbers(dropout)),
      .init("rank_pattern", .array(rankPatterns.map { .string($0) })),
      .init("alpha_pattern", .array(alphaPatterns.map { .string($0) })),
      .init("rslora", .bool(rsLoRA)), .init("dora", .bool(dora)),
      .init("lora_bias", .bool(loraBias)), .init("adapter", strings(existing)),
      .init("target_modules", .string(targetModules ?? TargetModules.allLinearName)),
      .init("init", .string((start ?? .uniform).rawValue)),
      .init("quantize", strings(quantize?.rawValue)), .init("mask", strings(mask?.rawValue)),
    ]
  }
}

extension RankSearchOptions {
  fileprivate var settings: [JSON.Member] {
    [
      .init("rank_by", rankBy.map { .string($0.rawValue) } ?? .null),
      .init("max_rank", maxRank.map { .number($0) } ?? .null),
      .init("mean_rank", meanRank.map { .number($0) } ?? .null),
      .init("budget", budget.map { .number($0) } ?? .null),
      .init("energy", energy.map { .number($0) } ?? .null),
    ]
  }
}

extension AdaLoRAOptions {
  fileprivate var settings: [JSON.Member] {
    let numbers: (Int?) -> JSON = { $0.map { .number($0) } ?? .null }
    return [
      .init("init_r", numbers(initR)), .init("tinit", numbers(tinit)),
      .init("tfinal", numbers(tfinal)), .init("delta_t", numbers(deltaT)),
      .init("orth_reg_weight", orthRegWeight.map { .number($0) } ?? .null),
    ]
  }
}

extension GaLoreOptions {
  fileprivate var settings: [JSON.Member] {
    [
      .init("update_proj_gap", updateProjGap.map { .number($0) } ?? .null),
      .init("scale", scale.map { .number($0) } ?? .null),
      .init("proj_type", projType.map { .string($0.rawValue) } ?? .null),
    ]
  }
}

extension LongTextOptions {
  fileprivate var settings: [JSON.Member] {
    [
      .init("long", .bool(long)),
      .init("rope_scaling", ropeScaling.map { .string($0) } ?? .null),
      .init("group_size", groupSize.map { .number($0) } ?? .null),
    ]
  }
}

extension TrainedWeightOptions {
  fileprivate var settings: [JSON.Member] {
    [
      .init("modules_to_save", modulesToSave.map { .string($0) } ?? .null),
      .init("trainable_tokens", trainableTokens.map { .string($0) } ?? .null),
    ]
  }
}

extension TrainingOptions {
  fileprivate func settings(_ method: MethodSettings) -> [JSON.Member] {
    [
      .init("seed", .number(String(seed))),
      .init("learning_rate", .number(learningRate ?? method.learningRate)),
      .init("schedule", .string(schedule.rawValue)), .init("warmup", .number(warmup)),
      .init("optimizer", .string(optimizer.rawValue)),
      .init("weight_decay", .number(weightDecay)),
      .init("max_grad_norm", .number(maximumGradientNorm)),
      .init("loraplus_ratio", .number(ratio)),
    ]
  }
}
