import Adapters
import Checkpoints
import Files
import JSON
import Patterns
import Tensors

/// The modules of a model that transformers 5.23 hands to bitsandbytes, told by names and shapes.
///
/// transformers takes each `nn.Linear` and `Conv1D` but those of `get_keys_to_not_convert`
/// (`quantizers/base.py`). A checkpoint has no classes, so the names that tell are listed here; they
/// come from all models of transformers 5.23, built without weights.
struct LinearModules: Sendable {
  /// A weight to be quantized.
  struct Weight: Sendable {
    /// The module's path.
    let module: String
    /// Its weight.
    let tensor: StoredTensor
    /// Whether the weight lies (in, out), as `Conv1D` has it.
    let isTransposed: Bool

    /// The output features.
    var rowCount: Int { tensor.shape[isTransposed ? 1 : 0] }
    /// The input features.
    var columnCount: Int { tensor.shape[isTransposed ? 0 : 1] }
  }

  /// The weights to be quantized, in the order of the checkpoint.
  private(set) var weights: [Weight] = []
  /// Linear modules that stay as they are: those of the head, and those that the user excludes.
  private(set) var skipped: [String] = []
  /// What the user should know.
  private(set) var notes: [String] = []

  /// Chooses modules; with `include` only those that match one of its globs, without those that
  /// match `exclude`.
  ///
  /// - Throws: `different` where a glob matches no module, or where transformers would skip more
  ///   modules than were excluded.
  init(of base: BaseModel, include: [Glob], exclude: [Glob]) throws(PeftoolError) {
    let rules = Rules(base)
    var left: [String] = []
    var expertCount = 0
    var chosen = [Bool](repeating: false, count: include.count + exclude.count)
    for tensor in base.tensors {
      if tensor.name.hasComponent("experts"), tensor.stored.shape.count >= 2 { expertCount += 1 }
      guard let module = tensor.name.moduleOfWeight, tensor.stored.shape.count == 2,
        !tensor.stored.shape.contains(0)
      else { continue }
      switch rules.kind(of: module) {
      case .other: continue
      case .head: left.append(module)
      case .linear:
        var isIn = include.isEmpty
        for (place, glob) in include.enumerated() where glob.matches(module) {
          chosen[place] = true
          isIn = true
        }
        for (place, glob) in exclude.enumerated() where glob.matches(module) {
          chosen[include.count + place] = true
          isIn = false
        }
        guard isIn else {
          skipped.append(module)
          continue
        }
        weights.append(
          Weight(
            module: module, tensor: tensor.stored,
            isTransposed: base.isConv1D(module) ?? false))
      }
    }
    if let idle = chosen.firstIndex(of: false) {
      let option = idle < include.count ? "--include" : "--exclude"
      throw PeftoolError(
        .different,
        "pattern \(idle - (idle < include.count ? 0 : include.count) + 1) of \(option) "
          + "matches no module that can be quantized")
    }
    if expertCount > 0 {
      notes.append(
        "\(expertCount.text(ofTensors: "of experts")) left in 16 or 32 bits: transformers fuses "
          + "experts, and bitsandbytes quantizes no fused ones")
    }
    guard !weights.isEmpty else {
      throw PeftoolError(
        .unsupported,
        skipped.isEmpty
          ? "has no linear module to quantize; transformers would find none either"
          : "has no linear module left to quantize: --include and --exclude leave all out")
    }
    if base.isTied, base.outputEmbedding == nil, let head = base.untiedOutputName.moduleOfWeight {
      // transformers has the module, and with a list of their own it skips none by itself.
      left.append(head)
    }
    if !skipped.isEmpty { skipped = left + skipped }
    try checkSkipping()
  }

  /// What `llm_int8_skip_modules` has to be; nil for transformers' own choice.
  var skipModules: [String]? { skipped.isEmpty ? nil : skipped }

  /// Makes sure that transformers, which reads a skipped path as a pattern, skips nothing else.
  private func checkSkipping() throws(PeftoolError) {
    for key in skipped {
      let pattern = try SkipPattern(key)
      for weight in weights where try pattern.matches(weight.module) {
        throw PeftoolError(
          .different,
          "transformers would skip \(weight.module.printable), too, when it skips "
            + "\(key.printable); exclude both or neither")
      }
    }
  }
}

/// How transformers matches an entry of `llm_int8_skip_modules` (`should_convert_module`): from the
/// start up to a dot, as a regular expression, or as an ending.
private struct SkipPattern {
  let key: String
  let expression: RegularExpression

  init(_ key: String) throws(PeftoolError) {
    self.key = key
    expression = try RegularExpression("(?:\(key))(?:(?<=\\.)|(?=\\.|$))")
  }

  func matches(_ module: String) throws(PeftoolError) -> Bool {
    if module.hasSuffix(key) { return true }
    return try expression.matchesStart(of: module)
  }
}

/// What the names of modules tell.
private struct Rules {
  enum Kind {
    /// An embedding, a norm, a router, or what transformers keeps in f32.
    case other
    /// The output embedding, or a classifier at the end.
    case head
    case linear
  }

  let base: BaseModel
  private let modelType: String
  private let kept: [String]

  init(_ base: BaseModel) {
    self.base = base
    modelType = base.modelType ?? ""
    kept = Self.keptInSingle[modelType] ?? []
  }

  func kind(of module: String) -> Kind {
    let path = module.split(separator: ".").map(String.init)
    guard let last = path.last else { return .other }
    let parent = path.dropLast().last ?? ""
    if BaseModel.isEmbedding(last) || last == "router" { return .other }
    // Routers are classes of their own in transformers 5, but for that of AFMoE.
    if last == "gate", parent != "router" { return .other }
    if module.hasExpertNumber || Self.foreignModelTypes.contains(modelType) { return .other }
    if kept.contains(where: { module == $0 || module.hasSuffix(".\($0)") }) { return .other }
    // torch's own attention has a class of its own for its last projection.
    let attention = path.dropLast().joined(separator: ".")
    if last == "out_proj", base["\(attention).in_proj_weight"] != nil { return .other }
    if Self.heads.contains(last) { return .head }
    if last == "decoder", ["predictions", "lm_head", "cls"].contains(parent) { return .head }
    // The module of the last parameter: a classifier without bias.
    if last == "score", base["\(module).bias"] == nil { return .head }
    return .linear
  }

  private static let heads = [
    "lm_head", "embed_out", "output_projection", "proj_out", "lm_loss", "audio_lm_head",
  ]

  /// Models with linear classes of their own, which transformers does not quantize.
  private static let foreignModelTypes = ["falcon", "ibert"]

  /// `_keep_in_fp32_modules`, as far as they are linear.
  private static let keptInSingle: [String: [String]] = {
    var kept: [String: [String]] = [:]
    for type in ["t5", "mt5", "umt5", "udop", "pop2piano"] { kept[type] = ["wo"] }
    for type in ["deepseek_v32", "glm_moe_dsa", "axk2", "mistral_large4", "mistral_large4_text"] {
      kept[type] = ["indexer.weights_proj"]
    }
    kept["deepseek_v4"] = [
      "self_attn.compressor.gate_proj", "self_attn.compressor.indexer.gate_proj",
      "self_attn.compressor.indexer.kv_proj",
      "self_attn.compressor.indexer.scorer.weights_proj", "self_attn.compressor.kv_proj",
      "self_attn.o_a_proj",
    ]
    return kept
  }()
}

extension Int {
  fileprivate func text(ofTensors what: String) -> String {
    "\(self) tensor\(self == 1 ? "" : "s") \(what)"
  }
}

extension String {
  fileprivate func hasComponent(_ component: String) -> Bool {
    split(separator: ".").contains { $0 == component }
  }

  /// Whether the module is one of numbered experts.
  fileprivate var hasExpertNumber: Bool {
    let path = split(separator: ".")
    return zip(path, path.dropFirst()).contains { $0 == "experts" && Int($1) != nil }
  }
}
