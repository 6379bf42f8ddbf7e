import Files
import LinearAlgebra
import Models
import Reports
import Tokenizers

/// A text that a model goes on with, token by token.
struct TextGeneration {
  /// Why it has ended.
  enum Finish: String {
    /// The model has ended it.
    case eos
    /// A string of `--stop`.
    case stop
    /// `--max-tokens`.
    case length
    /// The model takes no longer texts.
    case context
  }

  /// What has come of it.
  struct Result {
    var text = ""
    var finish = Finish.length
    /// The string of `--stop` that has ended it.
    var stop: String?
    /// All tokens of the model's, the one that ended the text among them.
    var tokens: [Int32] = []
    /// From the beginning to the first token.
    var firstTokenSeconds = 0.0
    /// From the beginning to the end.
    var seconds = 0.0

    /// The speed after the first token; nil where there is no second.
    var tokensPerSecond: Double? {
      guard tokens.count > 1, seconds > firstTokenSeconds else { return nil }
      return Double(tokens.count - 1) / (seconds - firstTokenSeconds)
    }
  }

  let language: LanguageModel
  let sampling: Sampling
  /// What ends the text.
  let endTokens: Set<Int32>
  let stops: [String]
  /// The most tokens that are added.
  let maximumTokenCount: Int

  /// Goes on with a text.
  ///
  /// - Parameter output: is given pieces of the text, which end with characters, as they come.
  /// - Throws: `unsupported` for an empty prompt and one that the model cannot take; `damaged` where
  ///   the logits are not finite; what `output` throws.
  func run(
    _ prompt: [Int32], team: ThreadTeam, output: (String) throws(PeftoolError) -> Void
  ) throws(PeftoolError) -> Result {
    let room = try room(for: prompt)
    let capacity = prompt.count + min(room, maximumTokenCount)
    try MemoryRoom.check(
      GenerationPass.byteCount(language.model, capacity: capacity),
      for: "a text of \(capacity.groupedText) tokens", isBesideModel: true,
      wayOut: "a shorter prompt or a smaller --max-tokens", path: language.path)
    var pass = GenerationPass(language.model, team: team, capacity: capacity)
    var stream = TextStream(language.tokenizer, skippingSpecialTokens: true)
    var text = StopText(stops)
    var result = Result()
    func emit(_ piece: String) throws(PeftoolError) {
      guard !piece.isEmpty else { return }
      result.text += piece
      try output(piece)
    }
    let start = monotonicSeconds()
    var next = prompt
    while true {
      let logits = pass.logits(after: next).values
      let token = try sampled(logits, prompt, result.tokens)
      if result.tokens.isEmpty { result.firstTokenSeconds = monotonicSeconds() - start }
      result.tokens.append(token)
      if endTokens.contains(token) {
        result.finish = .eos
        break
      }
      // A model may have more tokens than its tokenizer.
      if language.tokenizer.token(token) != nil { try emit(text.push(stream.push(token))) }
      if text.stop != nil { break }
      if result.tokens.count == maximumTokenCount { break }
      if result.tokens.count == room {
        result.finish = .context
        break
      }
      next = [token]
    }
    if text.stop == nil {
      try emit(text.push(stream.finish()))
      try emit(text.finish())
    }
    if let stop = text.stop { (result.finish, result.stop) = (.stop, stop) }
    result.seconds = monotonicSeconds() - start
    return result
  }

  /// How many tokens may follow a prompt.
  private func room(for prompt: [Int32]) throws(PeftoolError) -> Int {
    guard !prompt.isEmpty else {
      throw PeftoolError(
        .unsupported, "the prompt is empty, and the tokenizer puts no token before a text")
    }
    let length = language.model.configuration.contextLength
    guard prompt.count < length else {
      throw PeftoolError(
        .unsupported,
        "the prompt has \(prompt.count) tokens, the model takes texts of \(length) "
          + "(max_position_embeddings)", path: language.path)
    }
    return length - prompt.count
  }

  private func sampled(
    _ logits: [Float], _ prompt: [Int32], _ tokens: [Int32]
  ) throws(PeftoolError) -> Int32 {
    guard logits.allSatisfy(\.isFinite),
      let token = sampling.token(logits, after: prompt + tokens, index: tokens.count)
    else {
      throw PeftoolError(
        .damaged,
        "what the model makes of \((prompt.count + tokens.count).text(of: "token")) is NaN or "
          + "infinite; 'peftool verify' looks for such weights", path: language.path)
    }
    return token
  }
}
