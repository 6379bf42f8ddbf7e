import Checkpoints
import Files
import JSON
import LinearAlgebra
import Tensors
import Testing

@testable import Models
@testable import Training

/// The bytes of all floats that a value holds but those of its model, whatever is private there.
private func byteCount(of value: Any, _ seen: inout Set<ObjectIdentifier>) -> Int {
  if value is ThreadTeam { return 0 }
  let mirror = Mirror(reflecting: value)
  if mirror.displayStyle == .class {
    let isNew = seen.insert(ObjectIdentifier(value as AnyObject)).inserted
    guard isNew else { return 0 }
  }
  if let storage = value as? Storage { return 4 * storage.count }
  return mirror.children.reduce(0) { $0 + byteCount(of: $1.value, &seen) }
}

/// What a trainer says that it takes against what it then holds.
@Suite struct TrainingSizeTests {
  private static let galore: GaLore.Settings = {
    var settings = GaLore.Settings()
    settings.rank = 4
    return settings
  }()
  private static let fullGaLore: GaLore.Settings = {
    var settings = galore
    settings.projection = .full
    return settings
  }()
  private static let adaLoRA: AdaLoRA.Settings = {
    var settings = AdaLoRA.Settings()
    settings.initialRank = 3
    return settings
  }()

  private func trainer(
    _ peer: String, _ method: MethodSettings, isEightBit: Bool, design: AdapterDesign
  ) throws -> Trainer {
    let base = try PeerRun(peer).base
    var design = design
    design.method = method
    design.rank = 3
    let own = design
    let model = try Llama(
      base,
      training: method.trainsModel ? .wholeModel(sharingGradients: method != .full) : .none
    ) { (module, weight, original) throws(PeftoolError) in
      try method.trainsModel ? nil : own.adapter(of: module, weight, original: original)
    }
    return try Trainer(
      model,
      Trainer.Settings(
        schedule: Schedule(kind: .constant, warmupSteps: 0, stepCount: 12), method: method,
        isEightBit: isEightBit), team: ThreadTeam(count: 2))
  }

  @Test(
    arguments: ["full-llama3", "galore-full-qwen2", "galore-reverse-qwen3"],
    [
      MethodSettings.lora, .loraFA, .adaLoRA(adaLoRA), .full, .galore(galore), .galore(fullGaLore),
    ]) func aTrainerTakesWhatItSays(peer: String, method: MethodSettings) throws
  {
    for isDoRA in [false, true] where !isDoRA || method == .lora {
      var design = AdapterDesign()
      design.usesDoRA = isDoRA
      design.hasBias = !isDoRA && method == .lora
      let trainer = try trainer(peer, method, isEightBit: false, design: design)
      var seen: Set<ObjectIdentifier> = []
      let held = byteCount(of: trainer, &seen)
      // Norms and biases that are frozen are no part of it: a few rows.
      let vectors = try PeerRun(peer).base.tensors.filter { $0.shape.count == 1 }
        .reduce(0) { $0 + 4 * $1.elementCount }
      #expect(held - (method.trainsModel ? 0 : vectors) == trainer.size.trainerByteCount)
    }
  }

  @Test(arguments: [false, true]) func momentsTakeWhatIsSaved(isEightBit: Bool) throws {
    for method in [MethodSettings.full, .galore(Self.galore), .lora] {
      let trainer = try trainer(
        "full-llama3", method, isEightBit: isEightBit, design: AdapterDesign())
      #expect(
        trainer.size.moments == trainer.optimizer.state.reduce(0) { $0 + $1.byteCount })
    }
  }

  @Test func plannedAdaptersAreThoseThatAreMade() throws {
    for (rank, start, isDoRA) in [(3, AdapterStart.uniform, true), (2, .olora, false)] {
      var design = AdapterDesign()
      (design.rank, design.start, design.usesDoRA, design.dropout) = (rank, start, isDoRA, 0.1)
      let own = design
      let model = try Llama(PeerRun("full-llama3").base) {
        (module, weight, original) throws(PeftoolError) in
        try own.adapter(of: module, weight, original: original)
      }
      let planned = try ModelSize(
        planning: model.configuration, dtype: .f32, form: .numbers, training: .none
      ) { (layer) throws(PeftoolError) in try own.size(of: layer) }
      #expect(planned.groups == model.size.groups)
    }
  }

  /// By hand, from the sizes of the whole model.
  @Test func operationsAreThoseOfTheFormulas() throws {
    let model = try PeerRun("full-llama3").base
    let configuration = try LlamaConfiguration(of: model)
    let plain = try ModelSize(
      planning: configuration, dtype: .f32, form: .numbers, training: .none
    ) { _ in nil }
    let weights = Double(configuration.layerElementCount)
    let table = Double(configuration.tableElementCount)
    let heads = Double(
      configuration.layerCount * configuration.headCount * configuration.headSize)
    func cost(
      _ model: ModelSize, _ method: MethodSettings = .lora, keeping: LossPass.Keeping = .everything,
      isGrouped: Bool = false
    ) -> StepCost {
      StepCost(
        model, method, isEightBit: false, length: 10, keeping: keeping, isGrouped: isGrouped)
    }
    #expect(cost(plain).operationsPerToken == 4 * weights + 4 * table + 70 * heads)
    #expect(
      cost(plain, keeping: .inputs).operationsPerToken == 6 * weights + 4 * table + 90 * heads)
    #expect(
      cost(plain, isGrouped: true).operationsPerToken
        == 4 * weights + 4 * table + 70 * heads * 15 / 64)
    let whole = try ModelSize(
      planning: configuration, dtype: .f32, form: .numbers,
      training: .wholeModel(sharingGradients: true)
    ) { _ in nil }
    #expect(cost(whole, .full).operationsPerToken == 6 * weights + 6 * table + 70 * heads)
    let galore = cost(whole, .galore(Self.galore))
    #expect(galore.operationsPerStep == 4 * 4 * weights)
    #expect(galore.gap == 200 && galore.subspaceOperations > 0)
    let rates = StepCost.Rates(operations: 1e9, bytes: 1e9)
    // The first step finds a subspace, and the one after 200.
    let subspace = galore.subspaceOperations / 1e9
    let (one, all, more) = (
      galore.secondsBesidePasses(steps: 1, rates), galore.secondsBesidePasses(steps: 200, rates),
      galore.secondsBesidePasses(steps: 201, rates)
    )
    #expect(abs(all - (200 * (one - subspace) + subspace)) < 1e-9 * all)
    #expect(abs(more - (201 * (one - subspace) + 2 * subspace)) < 1e-9 * more)
  }

  /// Of two tables the gradient of that of the input takes no product; one of both ends is the head's.
  @Test(arguments: [false, true]) func aTrainedHeadTakesAProductMore(isTied: Bool) throws {
    let config = """
      {"model_type": "llama", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24,
       "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
       "rms_norm_eps": 1e-6, "tie_word_embeddings": \(isTied)}
      """
    let configuration = try LlamaConfiguration(JSON(parsing: Array(config.utf8)))
    func operations(_ modules: String...) throws -> Double {
      let size = try ModelSize(
        planning: configuration, dtype: .f32, form: .numbers,
        training: TrainedWeights(modules: modules, tokens: [])
      ) { _ in nil }
      return StepCost(
        size, .lora, isEightBit: false, length: 10, keeping: .everything, isGrouped: false
      ).operationsPerToken
    }
    let plain = try operations()
    #expect(try operations("embed_tokens") == plain + (isTied ? 2 * 50 * 16 : 0))
    #expect(try operations("lm_head") == plain + 2 * 50 * 16)
  }
}
