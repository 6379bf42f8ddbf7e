import Files
import JSON

/// The tokens by which a tokenizer begins and ends a text, as text.
package struct SpecialTokens: Equatable, Sendable {
  /// The token that begins a text (`bos_token`).
  package let bos: String?
  /// The token that ends a text (`eos_token`).
  package let eos: String?

  package init(bos: String? = nil, eos: String? = nil) {
    self.bos = bos
    self.eos = eos
  }

  /// Reads those of `tokenizer_config.json`, where a token is a string or an object with `content`.
  ///
  /// - Throws: `damaged` where one is anything else, or the whole is no object.
  init(_ config: JSON) throws(PeftoolError) {
    _ = try config.object(named: "the document")
    func token(_ key: String) throws(PeftoolError) -> String? {
      switch config[key] {
      case nil, .null: nil
      case .string(let token): token
      case let value?:
        switch value["content"] {
        case .string(let token): token
        default: throw value.unfit(key, "a string, or an object with content")
        }
      }
    }
    bos = try token("bos_token")
    eos = try token("eos_token")
  }

  func bos(for template: String) throws(PeftoolError) -> String {
    try needed(bos, "bos_token", for: template)
  }

  func eos(for template: String) throws(PeftoolError) -> String {
    try needed(eos, "eos_token", for: template)
  }

  private func needed(
    _ token: String?, _ key: String, for template: String
  ) throws(PeftoolError) -> String {
    guard let token else {
      throw PeftoolError(
        .different,
        "tokenizer_config.json names no \(key), which the chat template \(template) writes")
    }
    return token
  }
}
