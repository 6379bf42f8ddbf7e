import Checkpoints
import Files
import JSON
import Tokenizers

// The tokens with a meaning of their own.
extension TokenizerFields {
  /// llama.cpp's names for them, and the ends of its keys.
  private static let specialKeys = [
    ("bos", "bos_token_id"), ("eos", "eos_token_id"), ("unk", "unknown_token_id"),
    ("sep", "seperator_token_id"), ("pad", "padding_token_id"), ("cls", "cls_token_id"),
    ("mask", "mask_token_id"),
  ]

  /// The token that `tokenizer_config.json` has for a role.
  private func token(_ name: String) -> String? {
    let value = settings["\(name)_token"]
    if case .string(let content) = value?["content"] ?? value { return content }
    return nil
  }

  /// The same, or what `config.json` has for it.
  private func role(_ name: String) -> String? {
    if let token = token(name) { return token }
    guard case .number(let text) = config["\(name)_token_id"], let id = Int(text),
      tokens.indices.contains(id)
    else { return nil }
    return tokens[id]
  }

  /// The numbers of special tokens: of those that `tokenizer_config.json` names, then of those
  /// that `config.json` numbers.
  func special() throws(PeftoolError) -> [(key: String, id: Int)] {
    var found: [(key: String, id: Int)] = []
    for (name, key) in Self.specialKeys {
      guard let token = token(name),
        let added = file.addedTokens.first(where: { $0.token.isExactly(token) })
      else { continue }
      found.append((key, added.id))
    }
    for (name, key) in Self.specialKeys where !found.contains(where: { $0.key == key }) {
      guard let value = config["\(name)_token_id"], case .number = value else { continue }
      let id = try value.int(named: "\(name)_token_id")
      if tokens.indices.contains(id) { found.append((key, id)) }
    }
    // What stands in the middle of a text to be filled in, in Code Llama.
    if isLlama, tokens.count == 32016 {
      found += [
        ("prefix_token_id", 32007), ("suffix_token_id", 32008), ("middle_token_id", 32009),
        ("eot_token_id", 32010),
      ]
    }
    return found
  }

  /// Which tokens go around a text, where the file has to say it.
  func adds(_ special: [String]) throws(PeftoolError) -> [(name: String, adds: Bool)] {
    var adds: [(name: String, adds: Bool)] = []
    let single = Self.steps(file["post_processor"], "processors")
      .last { $0["type"] == .string("TemplateProcessing") }?["single"]
    var ends: [String: JSON] = [:]
    if case .array(let parts) = single ?? .null, parts.count > 1 {
      ends["bos"] = parts.first?["SpecialToken"]?["id"]
      ends["eos"] = parts.last?["SpecialToken"]?["id"]
    }
    for name in ["bos", "eos"] {
      if let value = settings["add_\(name)_token"], value != .null {
        adds.append((name, try value.bool(named: "add_\(name)_token")))
      } else if let end = ends[name] {
        adds.append((name, role(name).map { end == .string($0) } ?? false))
      }
    }
    // Granite's small models, says llama.cpp's converter; SmolLM has the same size.
    let isKnown = adds.contains { $0.name == "bos" }
    let isDefault = isSentencePiece || preTokenizer?.addsBOS == true
    if !isKnown, isLlama && tokens.count == 49152 || isDefault && special.contains("bos_token_id") {
      adds.insert(("bos", false), at: 0)
    }
    return adds
  }
}
