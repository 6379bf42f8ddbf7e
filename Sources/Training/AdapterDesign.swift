package import Adapters
package import Files
package import JSON
import LinearAlgebra
package import Models

/// What adapter is trained: the settings of PEFT's `LoraConfig` and `AdaLoraConfig`, by their names.
package struct AdapterDesign: Sendable {
  /// How it is trained.
  package var method = MethodSettings.lora
  /// `r`; AdaLoRA has its own.
  package var rank = 8
  /// `lora_alpha`.
  package var alpha = 16.0
  /// `lora_dropout`.
  package var dropout = 0.0
  /// `use_rslora`.
  package var usesRSLoRA = false
  /// `use_dora`.
  package var usesDoRA = false
  /// `lora_bias`.
  package var hasBias = false
  /// `target_modules`.
  package var targets = TargetModules.allLinear
  /// `rank_pattern`.
  package var rankPatterns: [ModulePattern<Int>] = []
  /// `alpha_pattern`.
  package var alphaPatterns: [ModulePattern<Double>] = []
  /// `init_lora_weights`.
  package var start = AdapterStart.uniform
  /// What A is drawn from.
  package var seed: UInt64 = 0

  package init() {}

  /// The adapter of a layer, as training begins; nil where the layer gets none.
  ///
  /// The same for the same seed on every machine, but for the last bits of all starts but `uniform`.
  /// - Parameter original: the weight as it was before it was quantized, where it has been.
  /// - Throws: as `TargetModules.contains` and `AdapterStart.pair`; `unsupported` for DoRA of the
  ///   output embedding; `damaged` where a row of the weight has no length, which DoRA divides by.
  package func adapter(
    of module: String, _ weight: FrozenWeight, original: FrozenWeight
  ) throws(PeftoolError) -> LoRA? {
    guard try targets.contains(module) else { return nil }
    if case .adaLoRA(let settings) = method {
      try Self.check(settings.initialRank, "--init-r", weight.layer(module))
      return adaLoRA(of: module, weight, rank: settings.initialRank)
    }
    let rank = try rankPatterns.firstValue(for: module) ?? rank
    if let option = rankOption { try Self.check(rank, option, weight.layer(module)) }
    let alpha = try alphaPatterns.firstValue(for: module) ?? alpha
    let scaling = alpha / (usesRSLoRA ? Double(rank).squareRoot() : Double(rank))
    let name = AdapterKey.prefix + module
    if method == .qaLoRA {
      return try qaLoRA(of: module, weight, rank: rank, scaling: scaling)
    }
    let pair: AdapterStart.Pair
    do throws(PeftoolError) {
      pair = try start.pair(
        rank: rank, scaling: scaling, module: module, weight, original: original, seed: seed)
    } catch {
      throw error.at(tensor: module + ".weight", path: error.path)
    }
    return LoRA(
      a: TrainableParameter(
        name + ".lora_A.weight", pair.a.rows(0..<rank), isFrozen: method == .loraFA),
      b: TrainableParameter(name + ".lora_B.weight", pair.b.rows(0..<rank)),
      magnitude: usesDoRA ? try magnitude(of: module, weight, pair, scaling: scaling) : nil,
      bias: hasBias
        ? TrainableParameter(name + ".lora_B.bias", Rows(1, weight.outputs), isDecayed: false)
        : nil,
      scaling: Float(scaling), dropout: dropout, all: (pair.a, pair.b))
  }

  /// The option that must not ask for more ranks than a layer has; nil where it may.
  var rankOption: String? {
    switch method {
    case .adaLoRA: "--init-r"
    case .rankSearch: "--max-rank"
    case .loraFA: "--rank"
    case .lora, .qaLoRA, .sparse, .shira, .full, .galore: nil
    }
  }

  /// Refuses more ranks than a layer has: rows of A that are independent, which AdaLoRA keeps
  /// orthonormal and LoRA-FA inverts, there are no more, nor of B·A's singular values.
  ///
  /// - Throws: `different`.
  static func check(
    _ rank: Int, _ option: String, _ layer: LlamaConfiguration.Linear
  ) throws(PeftoolError) {
    let most = min(layer.outputs, layer.inputs)
    guard rank > most else { return }
    throw PeftoolError(
      .different, "has \(most) ranks, and \(option) asks for \(rank)",
      tensor: layer.module + ".weight")
  }

  /// B·diag(E)·A with E = 0, A and B from N(0, 0.02²): PEFT `adalora/layer.py`
  /// (`reset_lora_parameters`).
  private func adaLoRA(of module: String, _ weight: FrozenWeight, rank: Int) -> LoRA {
    func factor(_ kind: String, _ columns: Int) -> TrainableParameter {
      let name = AdapterKey.prefix + module + kind
      let random = RandomNumbers(seed: seed, stream: RandomNumbers.stream(named: module + kind))
      let values = Rows(rank, columns)
      for row in 0..<rank {
        for column in 0..<columns {
          values[row, column] = Float(0.02 * random.normal(row * columns + column))
        }
      }
      return TrainableParameter(name, values)
    }
    return LoRA(
      a: factor(".lora_A", weight.inputs), b: factor(".lora_B", weight.outputs),
      e: TrainableParameter(AdapterKey.prefix + module + ".lora_E", Rows(rank, 1)),
      scaling: Float(AdapterConfiguration.adaLoRAScaling(alpha: alpha, rank: rank)),
      dropout: dropout)
  }

  /// B·A on the means of the groups in which the weight is quantized, each times their number.
  ///
  /// That factor is PEFT's (`lora/variants.py`, `QALoraLinearVariant`), where the authors' program has
  /// 1 and their paper the group's size. A begins as that of a layer with as many inputs as groups.
  ///
  /// - Throws: `unsupported` where the weight is in no such groups.
  private func qaLoRA(
    of module: String, _ weight: FrozenWeight, rank: Int, scaling: Double
  ) throws(PeftoolError) -> LoRA {
    let name = AdapterKey.prefix + module
    let groupSize: Int
    do throws(PeftoolError) {
      guard let size = try weight.groupSize else {
        throw PeftoolError(
          .unsupported,
          "is not in INT4 by groups, whose means --method qa-lora trains on: 'peftool quantize --type "
            + "int4' makes such a base")
      }
      groupSize = size
    } catch {
      throw error.at(tensor: module + ".weight")
    }
    let a = Rows(rank, weight.inputs / groupSize)
    start.draw(a, module: module, seed: seed)
    return LoRA(
      a: TrainableParameter(name + ".lora_A.weight", a),
      b: TrainableParameter(name + ".lora_B.weight", Rows(rank, weight.outputs)),
      groupSize: groupSize,
      scaling: Float(
        AdapterConfiguration.pooledScaling(scaling, columns: a.columns, groupSize: groupSize)),
      dropout: dropout)
  }

  private func magnitude(
    of module: String, _ weight: FrozenWeight, _ pair: AdapterStart.Pair, scaling: Double
  ) throws(PeftoolError) -> TrainableParameter {
    guard module != TrainedWeights.head else {
      throw PeftoolError(
        .unsupported,
        "gets no DoRA adapter, whose gradient takes all logits: leave it out of "
          + "--target-modules, or train LoRA", tensor: module + ".weight")
    }
    // Of W, or where the start adds to that, of what it adds to.
    let norms = start == .loftq ? pair.rowNorms(addedTo: weight, scaling) : weight.rowNorms
    if let row = norms.firstIndex(where: { !($0 > 0 && $0.isFinite) }) {
      throw PeftoolError(
        .damaged, "row \(row) has length \(norms[row]), which DoRA would divide by",
        tensor: module + ".weight")
    }
    return TrainableParameter(
      AdapterKey.prefix + module + ".lora_magnitude_vector", Rows(norms, columns: norms.count))
  }

  /// The `adapter_config.json` of what is saved.
  ///
  /// A start that takes its product from the weight is saved with the frozen rows, so that the
  /// adapter fits the model as it is: of twice the rank, its scaling as before (PEFT's
  /// `subtract_mutated_init`, which is wrong for `alpha_pattern` with rsLoRA).
  /// - Parameters:
  ///   - modules: the layers that have adapters.
  ///   - base: the base's name or path.
  ///   - groupSize: the inputs of a group of QA-LoRA.
  ///   - others: values of further keys.
  package func json(
    modules: [String], base: String, groupSize: Int? = nil, others: [String: JSON] = [:]
  ) -> JSON {
    if case .shira(let settings) = method {
      return SparseConfiguration.json([
        "r": .number(settings.rank), "target_modules": targets.json(of: modules),
        "base_model_name_or_path": .string(base), "task_type": .string("CAUSAL_LM"),
      ])
    }
    let isDoubled = start.takesFromWeight
    let (rankFactor, alphaFactor) =
      isDoubled ? (2, usesRSLoRA ? 2.0.squareRoot() : 2) : (1, 1)
    func pattern<Value>(_ patterns: [ModulePattern<Value>], _ json: (Value) -> JSON) -> JSON {
      .object(patterns.map { .init($0.key, json($0.value)) })
    }
    var own: [String: JSON] = [
      "r": .number(rankFactor * rank), "lora_alpha": PEFTConfiguration.number(alphaFactor * alpha),
      "lora_dropout": .number(dropout), "lora_bias": .bool(hasBias),
      "use_rslora": .bool(usesRSLoRA), "use_dora": .bool(usesDoRA),
      "target_modules": targets.json(of: modules),
      "rank_pattern": pattern(rankPatterns) { .number(rankFactor * $0) },
      "alpha_pattern": pattern(alphaPatterns) { PEFTConfiguration.number(alphaFactor * $0) },
      "init_lora_weights": start == .gaussian ? .string(start.rawValue) : .bool(true),
      "base_model_name_or_path": .string(base), "task_type": .string("CAUSAL_LM"),
    ]
    if let groupSize {
      (own["use_qalora"], own["qalora_group_size"]) = (.bool(true), .number(groupSize))
    }
    guard case .adaLoRA(let settings) = method else {
      return PEFTConfiguration.json(own.merging(others) { $1 })
    }
    // PEFT ignores `r` there, and warns of one that is not its default.
    let adaLoRA = own.merging(settings.json) { $1 }.merging(["r": .number(8)]) { $1 }
    return PEFTConfiguration.adaLoRA(adaLoRA.merging(others) { $1 })
  }
}

extension AdaLoRA.Settings {
  /// As they stand in `adapter_config.json`.
  fileprivate var json: [String: JSON] {
    [
      "init_r": .number(initialRank), "target_r": .number(targetRank),
      "tinit": .number(initialSteps), "tfinal": .number(finalSteps), "deltaT": .number(interval),
      "beta1": .number(beta1), "beta2": .number(beta2),
      "orth_reg_weight": .number(orthogonality), "total_step": .number(stepCount),
      "rank_pattern": .null,
    ]
  }
}

extension FrozenWeight {
  /// The sizes of the layer that has it.
  fileprivate func layer(_ module: String) -> LlamaConfiguration.Linear {
    LlamaConfiguration.Linear(module: module, outputs: outputs, inputs: inputs, hasBias: false)
  }
}
