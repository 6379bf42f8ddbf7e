package import Adapters
package import Files
import Glibc
package import JSON
import LinearAlgebra
package import Models
import Tensors

/// What adapter is trained: the settings of PEFT's `LoraConfig`, by its names.
package struct AdapterDesign: Sendable {
  /// `r`.
  package var rank = 8
  /// `lora_alpha`.
  package var alpha = 16.0
  /// `use_rslora`.
  package var usesRSLoRA = false
  /// `use_dora`.
  package var usesDoRA = false
  /// `target_modules`.
  package var targets = TargetModules.allLinear
  /// `rank_pattern`.
  package var rankPatterns: [ModulePattern<Int>] = []
  /// `alpha_pattern`.
  package var alphaPatterns: [ModulePattern<Double>] = []
  /// How A begins.
  package var start = Start.uniform
  /// What A is drawn from.
  package var seed: UInt64 = 0

  /// `init_lora_weights`: how A begins; B is zeros.
  package enum Start: String, CaseIterable, Sendable {
    /// U(−1/√in, 1/√in), PEFT's default (Kaiming's with a = √5).
    case uniform = "default"
    /// N(0, 1/r²).
    case gaussian
  }

  package init() {}

  /// The adapter of a layer, as training begins; nil where the layer gets none.
  ///
  /// The same for the same seed on every machine, but for the last bits of `gaussian`.
  /// - Throws: as `TargetModules.contains`, and `damaged` where a row of the weight has no length,
  ///   which DoRA divides by.
  package func adapter(
    of module: String, _ weight: FrozenWeight
  ) throws(PeftoolError) -> LoRA? {
    guard try targets.contains(module) else { return nil }
    let rank = try rankPatterns.firstValue(for: module) ?? rank
    let alpha = try alphaPatterns.firstValue(for: module) ?? alpha
    let name = AdapterKey.prefix + module
    // Each module draws from a stream of its own, whichever others there are.
    let random = RandomNumbers(seed: seed, stream: module.stableHash)
    let bound = 1 / Double(weight.inputs).squareRoot()
    let a = Rows(rank, weight.inputs)
    for row in 0..<rank {
      for column in 0..<weight.inputs {
        let place = row * weight.inputs + column
        a[row, column] =
          switch start {
          case .uniform: Float((random.uniform(place) * 2 - 1) * bound)
          case .gaussian: Float(random.normal(place) / Double(rank))
          }
      }
    }
    var magnitude: TrainableParameter?
    if usesDoRA {
      let norms = weight.rowNorms
      if let row = norms.firstIndex(where: { !($0 > 0 && $0.isFinite) }) {
        throw PeftoolError(
          .damaged, "row \(row) has length \(norms[row]), which DoRA would divide by",
          tensor: module + ".weight")
      }
      magnitude = TrainableParameter(
        name + ".lora_magnitude_vector", Rows(norms, columns: norms.count))
    }
    return LoRA(
      a: TrainableParameter(name + ".lora_A.weight", a),
      b: TrainableParameter(name + ".lora_B.weight", Rows(rank, weight.outputs)),
      magnitude: magnitude,
      scaling: Float(alpha / (usesRSLoRA ? Double(rank).squareRoot() : Double(rank))))
  }

  /// The `adapter_config.json` that PEFT would write.
  ///
  /// - Parameters:
  ///   - modules: the layers that have adapters.
  ///   - base: the base's name or path.
  ///   - others: values of further keys.
  package func json(modules: [String], base: String, others: [String: JSON] = [:]) -> JSON {
    func pattern<Value>(_ patterns: [ModulePattern<Value>], _ json: (Value) -> JSON) -> JSON {
      .object(patterns.map { .init($0.key, json($0.value)) })
    }
    let own: [String: JSON] = [
      "r": .number(rank), "lora_alpha": PEFTConfiguration.number(alpha),
      "use_rslora": .bool(usesRSLoRA), "use_dora": .bool(usesDoRA),
      "target_modules": targets.json(of: modules),
      "rank_pattern": pattern(rankPatterns) { .number($0) },
      "alpha_pattern": pattern(alphaPatterns) { PEFTConfiguration.number($0) },
      "init_lora_weights": start == .uniform ? .bool(true) : .string(start.rawValue),
      "base_model_name_or_path": .string(base), "task_type": .string("CAUSAL_LM"),
    ]
    return PEFTConfiguration.json(own.merging(others) { $1 })
  }
}

extension String {
  /// A number that follows from the bytes alone (FNV-1a, 64 bits).
  fileprivate var stableHash: UInt64 {
    utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }
}
