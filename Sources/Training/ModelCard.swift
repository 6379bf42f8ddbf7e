import Files
/// The `README.md` of an adapter: the front matter that PEFT writes, and what was done.
package struct ModelCard {
  private let base: String
  private let isDoRA: Bool
  private let facts: [(label: String, value: String)]

  /// A card; facts are plain text, one line each.
  package init(base: String, isDoRA: Bool, facts: [(label: String, value: String)]) {
    self.base = base
    self.isDoRA = isDoRA
    self.facts = facts
  }

  /// The text of the file.
  package var text: String {
    // A path of this machine tells nobody a base.
    let isName =
      base.split(separator: "/").count == 2 && !base.hasPrefix("/") && !base.hasPrefix(".")
      && !Folder.exists(base)
    var lines = ["---", "library_name: peft", "pipeline_tag: text-generation", "tags:"]
    if isName {
      lines.insert("base_model: \(base)", at: 1)
      lines.append("- base_model:adapter:\(base)")
    }
    lines += ["- \(isDoRA ? "dora" : "lora")", "- transformers", "---", ""]
    lines += ["# \(isDoRA ? "DoRA" : "LoRA") adapter", ""]
    lines += ["Trained with peftool finetune; PEFT loads it with `PeftModel.from_pretrained`.", ""]
    lines += ["| | |", "|---|---|"]
    lines += facts.map { "| \($0.label.cell) | \($0.value.cell) |" }
    return lines.joined(separator: "\n") + "\n"
  }
}

extension String {
  /// The string as the cell of a table.
  fileprivate var cell: String {
    reduce(into: "") { text, character in
      switch character {
      case "|": text += "\\|"
      case "\n", "\r", "\r\n": text += " "
      default: text.append(character)
      }
    }
  }
}
