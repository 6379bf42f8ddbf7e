import JSON

/// The `README.md` of an adapter, with the front matter that PEFT writes, or of a trained model, and
/// what was done.
///
/// Source: `create_or_update_model_card` of PEFT's `peft_model.py`.
package struct ModelCard {
  private let base: String
  /// The method, by its name.
  private let method: String
  private let isModel: Bool
  private let facts: [(label: String, value: String)]

  /// A card; the base is named as the user named it, and facts are plain text, one line each.
  ///
  /// - Parameter isModel: whether all of the model was trained.
  package init(
    base: String, method: String, isModel: Bool = false, facts: [(label: String, value: String)]
  ) {
    self.base = base
    self.method = method
    self.isModel = isModel
    self.facts = facts
  }

  /// The text of the file.
  package var text: String {
    var lines = [
      "---", "base_model: \(base.scalar)",
      "library_name: \(isModel ? "transformers" : "peft")", "pipeline_tag: text-generation",
      "tags:", "- \("base_model:\(isModel ? "finetune" : "adapter"):\(base)".scalar)",
      "- \(method.lowercased())", "- transformers", "---", "",
    ]
    lines += [isModel ? "# Fine-tuned model (\(method))" : "# \(method) adapter", ""]
    let loader =
      isModel ? "transformers loads it" : "PEFT loads it with `PeftModel.from_pretrained`"
    lines += ["Trained with peftool finetune; \(loader).", ""]
    lines += ["| | |", "|---|---|"]
    lines += facts.map { "| \($0.label.cell) | \($0.value.cell) |" }
    return lines.joined(separator: "\n") + "\n"
  }
}

extension String {
  /// The string as a scalar of YAML: in quotes, which are JSON's, where it could be anything else.
  fileprivate var scalar: String {
    let isPlain =
      contains("/") && first.map { $0.isLetter || "/.".contains($0) } == true && last != ":"
      && allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "/._-:".contains($0)) }
    return isPlain ? self : JSON.string(self).text()
  }

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
