import ArgumentParser
import Files
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

  func validate() throws {
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
