import Adapters
import ArgumentParser
import Checkpoints
import Files
import JSON
import Models

/// How long texts are trained on: LongLoRA.
struct LongTextOptions: ParsableArguments {
  @Flag(
    help: ArgumentHelp(
      "Train on long texts (LongLoRA): attention in shifted groups, and embeddings and norms "
        + "besides the adapter."))
  var long = false

  @Option(
    help: ArgumentHelp(
      "The tokens of a group of --long; a quarter of the longest row if left out.",
      valueName: "n"))
  var groupSize: Int?

  @Option(
    help: ArgumentHelp(
      "Stretch the positions to texts so many times as long: linear:F, yarn:F or dynamic:F.",
      valueName: "kind:factor"))
  var ropeScaling: String?

  func validate() throws {
    if let ropeScaling, PositionScaling(ropeScaling) == nil {
      throw ValidationError(
        "--rope-scaling is '\(ropeScaling)', expected linear:F, yarn:F or dynamic:F with F above 1")
    }
    if let groupSize {
      guard long else { throw ValidationError("--group-size goes with --long") }
      guard (2...(1 << 24)).contains(groupSize) else {
        throw ValidationError("--group-size is \(groupSize), expected 2 to \(1 << 24)")
      }
    }
  }

  /// What is trained besides adapters: every module whose name has `embed` or `norm` in the authors'
  /// `fine-tune.py`, but for the output embedding.
  static let modules = ["embed_tokens", "input_layernorm", "post_attention_layernorm", "norm"]
  /// The layers that get adapters there.
  static let targets = "q_proj,k_proj,v_proj,o_proj"

  /// The tokens of a group, of rows of so many; nil without `--long`.
  func groupSize(row: Int) -> Int? { long ? groupSize ?? max(2, (row + 3) / 4) : nil }

  /// A model as it is trained: with the positions that an adapter was trained with that it goes on
  /// from, and stretched as is wished.
  ///
  /// - Throws: as `PositionScaling`.
  func stretched(
    _ checkpoint: Checkpoint, existing adapter: String?
  ) throws(PeftoolError) -> Checkpoint {
    var checkpoint = checkpoint
    if let adapter { checkpoint = try checkpoint.stretched(by: [Adapter(opening: adapter)]).model }
    guard let scaling = ropeScaling.flatMap({ PositionScaling($0) }),
      let config = try checkpoint.modelConfig
    else { return checkpoint }
    do throws(PeftoolError) {
      return checkpoint.viewed(through: checkpoint.source, config: try scaling.applied(to: config))
    } catch {
      throw error.at(path: Folder.path(checkpoint.directory ?? checkpoint.path, "config.json"))
    }
  }

  /// Refuses a model with a window of its own.
  ///
  /// - Throws: `unsupported`.
  func check(_ configuration: LlamaConfiguration, path: String) throws(PeftoolError) {
    guard long, let window = configuration.windows.compactMap(\.self).first else { return }
    throw PeftoolError(
      .unsupported,
      "has layers with a sliding window of \(window) tokens, which --long would cut in groups",
      path: path)
  }
}
