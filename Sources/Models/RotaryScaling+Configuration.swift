import Files
import Glibc
import JSON

// The two spellings: `rope_theta` beside `rope_scaling` (transformers 4), or both in
// `rope_parameters` (5).
extension RotaryScaling {
  /// - Throws: `unsupported` for other kinds, `damaged`.
  init(_ fields: ConfigurationFields, positionCount: Int) throws(PeftoolError) {
    // Of both, transformers takes the older unless it is empty.
    let isOlder = fields["rope_scaling"].map { $0 != .object([]) } ?? false
    let key = isOlder || fields["rope_parameters"] == nil ? "rope_scaling" : "rope_parameters"
    let json = fields[key] ?? .object([])
    guard case .object(let members) = json else { throw json.unfit(key, "an object") }
    if members.contains(where: { if case .object = $0.value { true } else { false } }) {
      throw PeftoolError(.unsupported, "\(key) differs by layer, expected one for all")
    }
    let scaling = ConfigurationFields(json, under: "\(key).")
    theta =
      scaling["rope_theta"] != nil
      ? try scaling.required("rope_theta")
      : fields["rope_theta"] != nil ? try fields.required("rope_theta") : 10_000
    if let part = try scaling.double("partial_rotary_factor"), part != 1 {
      throw PeftoolError(.unsupported, "\(key).partial_rotary_factor is \(part), expected 1")
    }
    // A length beside the settings goes before the one among them (Phi-3 has it there).
    let original =
      try fields["original_max_position_embeddings"] == nil
      ? scaling.size("original_max_position_embeddings", default: positionCount)
      : fields.size("original_max_position_embeddings")
    let type =
      try (scaling["rope_type"] ?? scaling["type"])?.string(named: "\(key).rope_type") ?? "default"
    switch type {
    case "default": kind = .standard
    case "linear": kind = .linear(factor: try scaling.required("factor"))
    case "dynamic":
      kind = .dynamic(factor: try scaling.required("factor"), original: positionCount)
    case "llama3":
      let low = try scaling.required("low_freq_factor")
      kind = .llama3(
        factor: try scaling.required("factor"), low: low,
        high: try scaling.required("high_freq_factor", above: low),
        original: original)
    case "yarn":
      kind = .yarn(try YaRN(scaling, original: original, positionCount: positionCount))
    default:
      throw PeftoolError(
        .unsupported,
        "\(key).rope_type is \"\(type.printable)\", peftool computes default, linear, dynamic, "
          + "llama3, yarn")
    }
  }
}

extension RotaryScaling.YaRN {
  /// - Throws: `damaged`.
  fileprivate init(
    _ fields: ConfigurationFields, original: Int, positionCount: Int
  ) throws(PeftoolError) {
    self.original = original
    factor =
      fields["factor"] == nil
      ? Double(positionCount) / Double(original) : try fields.required("factor")
    // Python takes a 0 for none.
    func given(_ key: String) throws(PeftoolError) -> Double? {
      guard let number = try fields.double(key), number != 0 else { return nil }
      return try fields.required(key)
    }
    betaFast = try given("beta_fast") ?? 32
    betaSlow = try given("beta_slow") ?? 1
    truncates = try fields.bool("truncate") ?? true
    let factor = self.factor
    func scale(_ factor: Double, _ weight: Double) -> Double {
      factor <= 1 ? 1 : 0.1 * weight * log(factor) + 1
    }
    // Likewise.
    let weight = try fields.double("mscale") ?? 0
    let weightOfAll = try fields.double("mscale_all_dim") ?? 0
    if fields["attention_factor"] != nil {
      attentionFactor = try fields.required("attention_factor")
    } else if weight != 0, weightOfAll != 0 {
      attentionFactor = scale(factor, weight) / scale(factor, weightOfAll)
    } else {
      attentionFactor = scale(factor, 1)
    }
  }
}
