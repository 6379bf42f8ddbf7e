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

/// What a run trains that PEFT loads: files that are there in the end as they are.
package protocol TrainedFiles: TrainingResult {
  /// Writes them into a folder that is being made.
  ///
  /// - Parameter isFinished: whether training is over: ranks that are 0 are left out then.
  /// - Throws: `io`.
  func write(into output: inout StagedOutput, isFinished: Bool) throws(PeftoolError)
}

extension TrainedFiles {
  /// Writes them as a checkpoint has them.
  ///
  /// - Throws: `io`.
  package func write(into output: inout StagedOutput) throws(PeftoolError) {
    try write(into: &output, isFinished: false)
  }
}
