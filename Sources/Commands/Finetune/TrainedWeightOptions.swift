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

  func validate() throws {
    for (name, list) in [
      ("--modules-to-save", modulesToSave), ("--trainable-tokens", trainableTokens),
    ] where list?.commaParts.contains("") == true {
      throw ValidationError("\(name) is '\(list ?? "")', expected names separated by commas")
    }
  }

  /// What is chosen; texts of tokens are looked up in the model's tokenizer.
  ///
  /// - Throws: `different` for a text that is no token, `io` and as `Tokenizer`.
  ///
  /// - Parameter others: modules that are trained whole besides.
  func weights(
    ofModel model: String, besides others: [String] = []
  ) throws(PeftoolError) -> TrainedWeights {
    var tokens: [Int] = []
    var tokenizer: Tokenizer?
    for part in trainableTokens?.commaParts ?? [] {
      if let token = Int(part) {
        tokens.append(token)
        continue
      }
      let path = Folder.path(model, "tokenizer.json")
      if tokenizer == nil { tokenizer = try Tokenizer(contentsOf: path) }
      guard let token = tokenizer?.id(of: part) else {
        throw PeftoolError(
          .different, "has no token '\(part.printable)' (--trainable-tokens)", path: path)
      }
      tokens.append(Int(token))
    }
    let own = modulesToSave?.commaParts ?? []
    return TrainedWeights(modules: own + others.filter { !own.contains($0) }, tokens: tokens)
  }
}
