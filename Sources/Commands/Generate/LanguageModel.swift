import Adapters
import Checkpoints
import Examples
import Files
import JSON
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

  /// Opens a model, what is small first.
  ///
  /// - Throws: as `Checkpoint`, `Tokenizer`, `ModelAdapters` and `Llama`; `unsupported` for an
  ///   adapter and a GGUF model; `different` where a file was changed while it was read.
  init(opening path: String, _ options: ModelOptions) throws(PeftoolError) {
    var checkpoint = try Checkpoint(opening: path)
    try Self.check(checkpoint)
    folder = Folder.parent(of: checkpoint.source.path)
    let file = Folder.path(folder, "tokenizer.json")
    guard Folder.exists(file) else {
      throw PeftoolError(
        .different,
        "has no tokenizer.json beside it"
          + (checkpoint.packed == nil
            ? "" : "; a packed model is unpacked by 'peftool convert MODEL -o DIRECTORY'"),
        path: path)
    }
    tokenizer = try Tokenizer(contentsOf: file)
    tokens = try Examples.SpecialTokens(inFolder: folder)
    let ends = try Self.endTokens(checkpoint, folder)
    endTokens = ends ?? Set(tokens.eos.flatMap(tokenizer.id).map { [$0] } ?? [])
    let opened = try options.openAdapters()
    checkpoint = try checkpoint.stretched(by: opened)
    let pairs = try ModelAdapters(
      opened, weights: options.weights?.values ?? opened.map { _ in 1 }, for: checkpoint)
    try MemoryRoom.check(
      Llama.byteCount(of: checkpoint), for: "the model", isBesideModel: false,
      wayOut: "a copy made by 'peftool quantize'", path: path)
    model = try Llama(checkpoint, adapters: pairs)
    try checkpoint.source.verifyUnchanged()
    for adapter in opened { try adapter.checkpoint.source.verifyUnchanged() }
    self.path = path
    adapters = options.adapters
    notes = pairs.notes
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

  /// `eos_token_id` of `generation_config.json`, or else of `config.json`: a number or several.
  ///
  /// - Throws: `damaged` where it is anything else, `io`; with the file.
  private static func endTokens(
    _ checkpoint: Checkpoint, _ folder: String
  ) throws(PeftoolError) -> Set<Int32>? {
    let path = Folder.path(folder, "generation_config.json")
    let generation = Folder.exists(path) ? try JSON(opening: path) : nil
    let config = Folder.path(folder, "config.json")
    for (json, path) in [(generation, path), (try checkpoint.modelConfig, config)] {
      do throws(PeftoolError) {
        _ = try json?.object(named: "the document")
        guard let value = json?["eos_token_id"], value != .null else { continue }
        var numbers: Set<Int32> = []
        let values = if case .array(let values) = value { values } else { [value] }
        for value in values {
          guard let id = Int32(exactly: try value.int(named: "eos_token_id")) else {
            throw value.unfit("eos_token_id", "the number of a token, or several")
          }
          numbers.insert(id)
        }
        return numbers
      } catch {
        throw error.at(path: path)
      }
    }
    return nil
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
