package import Files

/// What a run trains, as its checkpoints save it.
package protocol TrainingResult {
  /// The bytes of all tensors as they are written.
  var byteCount: Int { get }

  /// Writes it into a folder that is being made.
  ///
  /// - Throws: `io`.
  func write(into output: inout StagedOutput) throws(PeftoolError)

  /// Takes all values from a folder that was written by `write`.
  ///
  /// - Throws: as `TensorFile.read`.
  func read(from folder: String) throws(PeftoolError)
}
