import Checkpoints
import Files
import JSON

// How a conversation becomes a text.
extension TokenizerFields {
  private static let maximumTemplateByteCount = 1 << 20

  static func template(
    _ settings: JSON, inFolder folder: String
  ) throws(PeftoolError) -> JSON? {
    if let template = settings["chat_template"], template != .null { return template }
    let path = Folder.path(folder, "chat_template.jinja")
    if Folder.exists(path) {
      let file = try InputFile(opening: path)
      guard file.byteCount <= maximumTemplateByteCount else {
        throw PeftoolError(
          .unsupported,
          "\(file.byteCount) bytes, expected at most \(maximumTemplateByteCount)", path: path)
      }
      guard let text = String(validating: try file.bytes(0..<file.byteCount), as: UTF8.self) else {
        throw PeftoolError(.damaged, "is no UTF-8", path: path)
      }
      return .string(text)
    }
    let other = Folder.path(folder, "chat_template.json")
    return Folder.exists(other) ? try JSON(opening: other)["chat_template"] : nil
  }

  /// The chat template, or several under their names.
  func templates() throws(PeftoolError) -> [GGUFField] {
    let key = "tokenizer.chat_template"
    guard let template, template != .null else { return [] }
    guard case .array(let choices) = template else {
      return [.text(key, try template.string(named: "chat_template"))]
    }
    var named: [(name: String, template: String)] = []
    for choice in choices {
      // Letters and digits of ASCII only, as llama.cpp's converter has them.
      let name = String(
        try choice.string(at: "name").map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "_" })
      guard !named.contains(where: { $0.name == name }) else {
        throw PeftoolError(.damaged, "chat_template has \"\(name)\" twice")
      }
      named.append((name, try choice.string(at: "template")))
    }
    let others = named.filter { $0.name != "default" }
    var fields: [GGUFField] = others.map { .text("\(key).\($0.name)", $0.template) }
    if !others.isEmpty { fields.append(.texts("tokenizer.chat_templates", others.map(\.name))) }
    if let standard = named.first(where: { $0.name == "default" }) {
      fields.append(.text(key, standard.template))
    }
    return fields
  }
}
