import Files
package import JSON
package import Models

extension TrainedWeights {
  /// What `adapter_config.json` has for them, by PEFT's keys.
  ///
  /// A table that both ends share is one with `ensure_weight_tying`, for which PEFT puts the input
  /// embedding's whole path on the list and takes the head off it (`lora/model.py`,
  /// `_add_modules_to_save_to_tie`).
  package func json(isTied: Bool) -> [String: JSON] {
    var entries: [String: JSON] = [:]
    var names = modules
    if isTied, containsTable(isTied: true) {
      entries["ensure_weight_tying"] = .bool(true)
      names.removeAll(where: Self.head.hasSuffix)
      if !names.contains(Self.embedding) { names.append(Self.embedding) }
    }
    if !names.isEmpty { entries["modules_to_save"] = .array(names.map(JSON.string)) }
    if !tokens.isEmpty {
      entries["trainable_token_indices"] = .array(tokens.map { JSON.number($0) })
    }
    return entries
  }
}
