import Files
import JSON

/// A tensor's name in kohya's form: `PREFIX_MODULE_WITH_UNDERSCORES.PART`.
struct KohyaKey {
  /// The name before the first dot.
  let module: String
  /// What the tensor is for; nil for methods without a low-rank pair.
  let part: Part?
  /// The method that has such tensors; nil for a pair's.
  let method: String?

  /// The tensors of a pair.
  enum Part: String {
    case down = "lora_down.weight"
    case up = "lora_up.weight"
    case alpha
    case doraScale = "dora_scale"
  }

  /// The beginnings of what other methods call their tensors (`weight_list` in `lycoris/modules`).
  private static let methods = [
    ("lora_mid.", "Tucker-decomposed LoCon"), ("hada_", "LoHa"), ("lokr_", "LoKr"),
    ("oft_", "OFT"), ("a1.", "GLoRA"), ("a2.", "GLoRA"), ("b1.", "GLoRA"), ("b2.", "GLoRA"),
    ("diff", "whole differences"), ("w_norm", "norms"), ("b_norm", "norms"),
    ("on_input", "(IA)³"),
  ]

  /// Whether no other file has such a name: `alpha` stands in models, too.
  var isTelling: Bool {
    part == .down || part == .up
      || ["LoHa", "LoKr", "OFT", "Tucker-decomposed LoCon"].contains(method)
  }

  /// Reads a name; nil where it is none of kohya's.
  init?(_ name: String) {
    guard let dot = name.utf8.firstIndex(of: UInt8(ascii: ".")) else { return nil }
    let end = String(name[dot...].dropFirst())
    module = String(name[..<dot])
    part = Part(rawValue: end)
    method = Self.methods.first { end.hasPrefix($0.0) }?.1
    guard module.contains("_"), part != nil || method != nil else { return nil }
  }
}

/// What modules are called in kohya's form, in which every dot of a path is a `_`.
///
/// So a name alone does not tell the path: a base does, or a list of the words that the paths of
/// known models are made of.
struct KohyaNames {
  private let base: BaseModel?
  private let paths: [ExactName: [String]]

  /// With the names of a base, where there is one.
  init(_ base: BaseModel?) {
    self.base = base
    var paths: [ExactName: [String]] = [:]
    for tensor in base?.tensors ?? [] where tensor.name.hasSuffix(".weight") {
      for path in ModuleNames.modelPaths(of: String(tensor.name.dropLast(".weight".count))) {
        paths[ExactName(Self.flatten(path)), default: []].append(path)
      }
    }
    self.paths = paths
  }

  /// The prefixes in use, each before those that it begins with: text encoders, U-Net and
  /// transformer of image models; `lycoris` for any other.
  private static let prefixes = [
    "lora_te1", "lora_te2", "lora_te3", "lora_te", "lora_unet", "lora_transformer", "lycoris",
  ]

  /// A path with its prefix in kohya's form.
  static func flatten(_ path: String, prefix: String) -> String { "\(prefix)_\(flatten(path))" }

  private static func flatten(_ path: String) -> String { path.replacing(".", with: "_") }

  /// The prefix that modules get where the user names none.
  static func defaultPrefix(for paths: [String]) -> String {
    if paths.contains(where: { $0.hasPrefix("text_model.") }) { return "lora_te" }
    let blocks = ["down_blocks.", "mid_block.", "up_blocks."]
    let isUNet = paths.contains { path in blocks.contains(where: path.hasPrefix) }
    return isUNet ? "lora_unet" : "lycoris"
  }

  /// The one prefix that all names have.
  ///
  /// - Throws: `unsupported` where they have several, or none that is known.
  static func prefix(of names: [String]) throws(PeftoolError) -> String {
    var found: [String] = []
    for name in names {
      guard let prefix = prefixes.first(where: { name.hasPrefix($0 + "_") }) else {
        throw PeftoolError(
          .unsupported,
          "\(name.printable) begins with no known prefix (\(prefixes.joined(separator: ", "))): "
            + "--prefix names it")
      }
      if !found.contains(prefix) { found.append(prefix) }
    }
    guard found.count == 1 else {
      throw PeftoolError(
        .unsupported,
        "holds adapters of \(found.count) networks, \(found.joined(separator: ", ")): --prefix "
          + "chooses one")
    }
    return found[0]
  }

  /// The module's path in the running model.
  ///
  /// - Throws: `different` where the base has no such module, `unsupported` where the path cannot
  ///   be told.
  func path(of name: String, prefix: String) throws(PeftoolError) -> String {
    let rest = String(name.dropFirst(prefix.count + 1))
    guard let base else {
      guard let path = Self.unflatten(rest) else {
        throw PeftoolError(
          .unsupported,
          "the path of \(name.printable) cannot be told, as kohya has '_' for '.': --base MODEL "
            + "tells it")
      }
      return path
    }
    let found = paths[ExactName(rest)] ?? []
    guard let path = found.first else {
      let nearest = ModuleNames(base).nearest(to: "\(rest).weight")
      throw PeftoolError(
        .different,
        "the base has no module whose name is \(rest.printable) with '_' for '.'; nearest: "
          + nearest.map(\.printable).joined(separator: ", "))
    }
    guard found.allSatisfy({ $0 == path }) else {
      throw PeftoolError(
        .unsupported,
        "\(name.printable) may be any of "
          + found.prefix(3).map(\.printable).joined(separator: ", "))
    }
    return path
  }

  /// The words of the paths in CLIP's text models, diffusers' U-Nets, Llama's family and GPT-2.
  private static let words: Set = [
    "text_model", "encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj",
    "mlp", "fc1", "fc2", "text_projection",
    "down_blocks", "mid_block", "up_blocks", "attentions", "resnets", "transformer_blocks",
    "attn1", "attn2", "to_q", "to_k", "to_v", "to_out", "ff", "net", "proj", "proj_in",
    "proj_out", "conv1", "conv2", "conv", "conv_in", "conv_out", "conv_shortcut",
    "time_emb_proj", "time_embedding", "linear_1", "linear_2", "downsamplers", "upsamplers",
    "model", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head",
    "transformer", "h", "attn", "c_attn", "c_proj", "c_fc",
  ]
  private static let mostWordParts = 3
  private static let mostParts = 64

  /// The path that known words and numbers make of a name; nil where there is none, or several.
  static func unflatten(_ name: String) -> String? {
    let parts = name.split(separator: "_", omittingEmptySubsequences: false)
    guard parts.count <= mostParts else { return nil }
    // For each number of parts from the end the one path that they make, and how many there are.
    var rests: [(path: [String], count: Int)] = [([], 1)]
    for start in parts.indices.reversed() {
      var rest: (path: [String], count: Int) = ([], 0)
      for length in 1...min(mostWordParts, parts.count - start) {
        let word = parts[start..<start + length].joined(separator: "_")
        let isNumber =
          length == 1 && !word.isEmpty && word.utf8.allSatisfy { (48...57).contains($0) }
        let next = rests[parts.count - start - length]
        guard isNumber || words.contains(word), next.count > 0 else { continue }
        rest = ([word] + next.path, min(2, rest.count + next.count))
      }
      rests.append(rest)
    }
    guard let whole = rests.last, whole.count == 1, !whole.path.isEmpty else { return nil }
    return whole.path.joined(separator: ".")
  }
}
