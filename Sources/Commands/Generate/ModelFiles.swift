import Adapters
import Checkpoints
import Examples
import Files
import JSON
import Models
import Tokenizers

/// What lies in a model's folder, its weights not yet read.
struct ModelFiles {
  /// The path that the user gave.
  let path: String
  let checkpoint: Checkpoint
  /// The folder with the model's other files.
  let folder: String
  let tokenizer: Tokenizer
  /// The tokens that begin and end a text.
  let tokens: Examples.SpecialTokens
  /// What ends a text that the model goes on with.
  let endTokens: Set<Int32>

  /// Opens a model's folder.
  ///
  /// - Throws: as `Checkpoint` and `Tokenizer`; as `LanguageModel.check`.
  init(opening path: String) throws(PeftoolError) {
    self.path = path
    checkpoint = try Checkpoint(opening: path)
    try LanguageModel.check(checkpoint)
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
  }

  /// Refuses a model that there is no memory for, with the adapters as they are applied.
  ///
  /// - Throws: as `MemoryRoom.check`.
  func checkRoom(for adapters: [Adapter]) throws(PeftoolError) {
    try MemoryRoom.check(
      Llama.byteCount(of: checkpoint) + adapters.reduce(0) { $0 + $1.appliedByteCount },
      for: "the model", isBesideModel: false, wayOut: "a copy made by 'peftool quantize'",
      path: path)
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
}
