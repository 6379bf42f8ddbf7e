package import Files
package import JSON
import Tensors

/// What `config.json` says of a model in group-wise INT4.
package struct Int4Settings: Sendable {
  /// How weights lie.
  package let layout: Int4Layout
  /// The inputs that share a scale; nil for whole rows.
  ///
  /// Of HQQ each weight says it itself.
  package let groupSize: Int?
  /// Whether groups may be of inputs in any order, which `g_idx` tells.
  package let isReordered: Bool
  /// Whether every zero point is 8, which some readers take for granted where it is said.
  let isSymmetric: Bool
  /// MLX's settings of modules of their own, by the module's path.
  private let modules: [ExactName: JSON]

  /// Reads a configuration; nil where it speaks of none of these layouts.
  ///
  /// - Throws: `unsupported` for settings that other tensors come with; `damaged`.
  package init?(_ config: JSON?) throws(PeftoolError) {
    let settings = config?["quantization_config"]
    switch settings?["quant_method"] {
    case .string("gptq"): try self.init(gptq: settings ?? .null)
    case .string("awq"): try self.init(awq: settings ?? .null)
    case .string("hqq"): try self.init(hqq: settings ?? .null)
    case nil:
      guard let settings = config?["quantization"] ?? settings, settings != .null else {
        return nil
      }
      try self.init(mlx: settings)
    default: return nil
    }
  }

  private init(gptq settings: JSON) throws(PeftoolError) {
    let format = try (settings["checkpoint_format"] ?? settings["format"] ?? .string("gptq"))
      .string(named: "quantization_config.checkpoint_format").lowercased()
    guard let layout = Int4Layout(rawValue: format), layout == .gptq || layout == .gptqV2 else {
      throw PeftoolError(
        .unsupported,
        "checkpoint_format is \"\(format.printable)\", expected \"gptq\" or \"gptq_v2\"")
    }
    self.layout = layout
    groupSize = try Self.groupSize(settings, isOptional: true)
    isReordered = try settings["desc_act"]?.bool(named: "quantization_config.desc_act") ?? false
    isSymmetric = try settings["sym"]?.bool(named: "quantization_config.sym") ?? true
    modules = [:]
  }

  private init(awq settings: JSON) throws(PeftoolError) {
    let version = try (settings["version"] ?? settings["format"] ?? .string("gemm"))
      .string(named: "quantization_config.version").lowercased()
    let isOfAnotherTool = settings["backend"] == .string("llm-awq")
    guard version == "gemm", !isOfAnotherTool else {
      throw PeftoolError(
        .unsupported,
        "is AWQ of version \"\(isOfAnotherTool ? "llm-awq" : version.printable)\", expected "
          + "\"gemm\"")
    }
    guard settings["zero_point"] != .bool(false) else {
      throw PeftoolError(.unsupported, "is AWQ without zero points (zero_point is false)")
    }
    layout = .awq
    groupSize = try Self.groupSize(settings, isOptional: true)
    (isReordered, isSymmetric) = (false, false)
    modules = [:]
  }

  /// Of HQQ what counts stands beside each weight.
  private init(hqq settings: JSON) throws(PeftoolError) {
    layout = .hqq
    let size = settings["quant_config"]?["weight_quant_params"]?["group_size"] ?? .null
    groupSize = size == .null ? nil : try size.int(named: "group_size")
    if let groupSize, groupSize <= 0 {
      throw PeftoolError(.unsupported, "group_size is \(groupSize), expected a number above 0")
    }
    (isReordered, isSymmetric) = (false, false)
    modules = [:]
  }

  private init(mlx settings: JSON) throws(PeftoolError) {
    layout = .mlx
    groupSize = try Self.groupSize(settings, isOptional: false)
    (isReordered, isSymmetric) = (false, false)
    var modules: [ExactName: JSON] = [:]
    for member in try settings.object(named: "quantization") {
      if case .object = member.value { modules[ExactName(member.key)] = member.value }
    }
    self.modules = modules
  }

  /// The group size of settings of 4 bits; nil for -1, whole rows.
  private static func groupSize(
    _ settings: JSON, isOptional: Bool
  ) throws(PeftoolError) -> Int? {
    // AutoAWQ once wrote the names of its command line.
    let bits = try (settings["bits"] ?? settings["w_bit"] ?? .null).int(named: "bits")
    guard bits == 4 else {
      throw PeftoolError(.unsupported, "is quantized to \(bits) bits, expected 4")
    }
    let mode = settings["mode"] ?? .string("affine")
    guard mode == .string("affine") else {
      throw PeftoolError(.unsupported, "mode is \(mode.summary), expected \"affine\"")
    }
    let size = try (settings["group_size"] ?? settings["q_group_size"] ?? .null)
      .int(named: "group_size")
    if size == -1, isOptional { return nil }
    guard size > 0, size % 8 == 0 else {
      throw PeftoolError(.unsupported, "group_size is \(size), expected a multiple of 8")
    }
    return size
  }

  /// The size of a module's groups; nil for whole rows.
  ///
  /// - Throws: as `init`.
  package func groupSize(of module: String) throws(PeftoolError) -> Int? {
    guard let own = modules[ExactName(module)] else { return groupSize }
    return try Self.groupSize(own, isOptional: false)
  }
}
