import Adapters
import Checkpoints
import Files
import JSON

/// A model directory that is made of another: new files of tensors, another `config.json`, and the
/// rest as it is.
struct ModelFolder {
  let source: Checkpoint
  let layout: CheckpointLayout
  /// The new `config.json`; nil where the source has none.
  let config: JSON?

  /// Lays the folder out, lets `body` write the tensors' files, and gives it its name.
  ///
  /// - Throws: `io`; `unsupported` where the output is or holds an input, `different` where an
  ///   input changes meanwhile; what `body` throws.
  func write<Result>(
    to path: String, force: Bool, _ body: ([OutputFile]) throws(PeftoolError) -> Result
  ) throws(PeftoolError) -> Result {
    var output = try StagedOutput(
      .directory, at: path, force: force, apartFrom: source.source.files)
    let files = try output.createFiles(of: layout)
    try output.carryOtherFiles(of: source, config: config)
    let result = try body(files)
    try source.source.verifyUnchanged()
    try output.commit()
    return result
  }
}
