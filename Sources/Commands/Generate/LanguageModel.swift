import Adapters
import Checkpoints
import Examples
import Files
import Models
import Tokenizers

/// A model with all that it takes to run it on text: weights, adapters and tokenizer.
///
/// Memory: that of the weights as they lie in the file, and of the adapters in f32.
struct LanguageModel {
  /// The path that the user gave.
  let path: String
  /// The folder with the model's other files.
  let folder: String
  let model: Llama
  let tokenizer: Tokenizer
  /// The tokens that begin and end a text.
  let tokens: Examples.SpecialTokens
  /// What ends a text that the model goes on with.
  let endTokens: Set<Int32>
  /// The adapters' paths, in the order given.
  let adapters: [String]
  /// What the user should know: one sentence each.
  let notes: [String]

  /// Opens a model with all adapters beside it, what is small first.
  ///
  /// - Throws: as `Checkpoint`, `Tokenizer`, `ModelAdapters` and `Llama`; `unsupported` for an
  ///   adapter and a GGUF model; `different` where a file was changed while it was read.
  init(opening path: String, _ options: ModelOptions) throws(PeftoolError) {
    let files = try ModelFiles(opening: path)
    let opened = try options.openAdapters()
    try files.checkRoom(for: opened)
    try self.init(files, opened, weights: options.weights?.values ?? opened.map { _ in 1 })
    try files.checkpoint.source.verifyUnchanged()
  }

  /// Reads a model with adapters beside it.
  ///
  /// - Parameter shared: the tensors that other models have read.
  /// - Throws: as the other.
  init(
    _ files: ModelFiles, _ opened: [Adapter], weights: [Double],
    sharing shared: SharedTensors? = nil
  ) throws(PeftoolError) {
    // One of weight 0 has no part in anything.
    let (checkpoint, positionNotes) = try files.checkpoint.stretched(
      by: zip(opened, weights).filter { $1 != 0 }.map(\.0))
    let pairs = try ModelAdapters(opened, weights: weights, for: checkpoint)
    model = try Llama(checkpoint, adapters: pairs, sharing: shared)
    for adapter in opened { try adapter.checkpoint.source.verifyUnchanged() }
    path = files.path
    folder = files.folder
    tokenizer = files.tokenizer
    tokens = files.tokens
    endTokens = files.endTokens
    adapters = opened.map(\.path)
    notes = positionNotes + pairs.notes
  }

  /// Refuses what is no model that can be computed.
  ///
  /// - Throws: `unsupported` for adapters and GGUF files.
  static func check(_ checkpoint: Checkpoint) throws(PeftoolError) {
    guard !checkpoint.isAdapter else {
      throw PeftoolError(
        .unsupported, "is an adapter, expected a model; --adapter takes adapters",
        path: checkpoint.path)
    }
    guard checkpoint.kind != .gguf else {
      throw PeftoolError(
        .unsupported,
        "is a GGUF model, expected safetensors; 'peftool convert \(checkpoint.path.printable) -o "
          + "DIRECTORY' makes them of it", path: checkpoint.path)
    }
  }

  /// The numbers of a text's tokens, each of which the model knows.
  ///
  /// - Throws: as `Tokenizer.encode`, and `different` for a token that is beyond the embedding.
  func encode(_ text: String, addingSpecialTokens: Bool = true) throws(PeftoolError) -> [Int32] {
    let ids = try tokenizer.encode(text, addingSpecialTokens: addingSpecialTokens)
    try check(ids)
    return ids
  }

  /// Refuses tokens that the model does not have.
  ///
  /// - Throws: `different` with the first of them.
  func check(_ ids: some Sequence<Int32>) throws(PeftoolError) {
    let count = model.configuration.vocabularySize
    guard let unknown = ids.first(where: { Int($0) >= count || $0 < 0 }) else { return }
    let text = tokenizer.token(unknown).map { " ('\($0.printable)')" } ?? ""
    throw PeftoolError(
      .different,
      "the tokenizer makes token \(unknown)\(text) of the text, the model has 0 to \(count - 1): "
        + "tokenizer.json is another model's",
      path: path)
  }
}
