import ArgumentParser
import Files
import Models
import Tokenizers

/// What is trained of the model's own weights, besides the adapter.
struct TrainedWeightOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Modules that are trained whole, by the ends of their names: embed_tokens, lm_head, norm, "
        + "input_layernorm, up_proj and so on.", valueName: "names"))
  var modulesToSave: String?

  @Option(
    help: ArgumentHelp(
      "Tokens whose rows of the embedding are trained: their numbers or texts, such as "
        + "128011,<|tool|>.", valueName: "tokens"))
  var trainableTokens: String?

  private func parts(_ list: String?) -> [Substring] {
    guard let list else { return [] }
    return list.split(separator: ",", omittingEmptySubsequences: false).map(\.withoutOuterSpaces)
  }

  func validate() throws {
    for (name, list) in [
      ("--modules-to-save", modulesToSave), ("--trainable-tokens", trainableTokens),
    ] where parts(list).contains("") {
      throw ValidationError("\(name) is '\(list ?? "")', expected names separated by commas")
    }
  }

  /// What is chosen; texts of tokens are looked up in the model's tokenizer.
  ///
  /// - Throws: `different` for a text that is no token, `io` and as `Tokenizer`.
  func weights(ofModel model: String) throws(PeftoolError) -> TrainedWeights {
    var tokens: [Int] = []
    var tokenizer: Tokenizer?
    for part in parts(trainableTokens) {
      if let token = Int(part) {
        tokens.append(token)
        continue
      }
      let path = Folder.path(model, "tokenizer.json")
      if tokenizer == nil { tokenizer = try Tokenizer(contentsOf: path) }
      guard let token = tokenizer?.id(of: String(part)) else {
        throw PeftoolError(
          .different, "has no token '\(String(part).printable)' (--trainable-tokens)", path: path)
      }
      tokens.append(Int(token))
    }
    return TrainedWeights(modules: parts(modulesToSave).map(String.init), tokens: tokens)
  }
}

extension Substring {
  fileprivate var withoutOuterSpaces: Substring {
    var rest = drop { $0 == " " }
    while rest.last == " " { rest.removeLast() }
    return rest
  }
}
