package import Files

/// Where a model goes, and how it gets there whole or not at all.
package struct ModelOutput: Sendable {
  /// Where a model goes.
  package enum Destination: Sendable {
    /// A model directory.
    case directory(String)
    /// One safetensors file.
    case file(String)
    /// One safetensors stream to standard output.
    case stream
  }

  /// Where it goes.
  package let destination: Destination
  /// The files of its tensors.
  package let layout: CheckpointLayout
  /// What is read for it: an output is none of their files, and none may change meanwhile.
  package let inputs: [any TensorSource]

  package init(
    to destination: Destination, _ layout: CheckpointLayout, inputs: [any TensorSource]
  ) {
    self.destination = destination
    self.layout = layout
    self.inputs = inputs
  }

  /// Creates the files, lets `tensors` fill them, and puts the output in its place.
  ///
  /// - Parameters:
  ///   - force: whether an output that is there already is replaced.
  ///   - companions: writes what lies beside the tensors in a directory.
  /// - Throws: `io`; `unsupported` where the output is or holds an input, `different` where an
  ///   input changes meanwhile; what the closures throw.
  package func write<Result>(
    force: Bool, companions: (inout StagedOutput) throws(PeftoolError) -> Void,
    tensors: ([OutputFile]) throws(PeftoolError) -> Result
  ) throws(PeftoolError) -> Result {
    var files: [InputFile] = []
    for input in inputs { files += try input.inputFiles }
    switch destination {
    case .stream:
      let result = try tensors([.standardOutput()])
      try verifyInputs()
      return result
    case .file(let path):
      var output = try StagedOutput(.file, at: path, force: force, apartFrom: files)
      let file = try output.createFile(byteCount: layout.byteCount)
      let result = try tensors([file])
      try verifyInputs()
      try output.commit()
      return result
    case .directory(let path):
      var output = try StagedOutput(
        .init(folderOf: layout.files.map(\.name)), at: path, force: force, apartFrom: files)
      let outputFiles = try output.createFiles(of: layout)
      try companions(&output)
      let result = try tensors(outputFiles)
      try verifyInputs()
      try output.commit()
      return result
    }
  }

  private func verifyInputs() throws(PeftoolError) {
    for input in inputs { try input.verifyUnchanged() }
  }
}
