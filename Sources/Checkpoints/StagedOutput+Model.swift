package import Files
package import JSON

// A model directory under construction.
extension StagedOutput {
  /// Creates the files of a layout, and writes its index.
  ///
  /// - Throws: as `createFile` and `write`.
  package mutating func createFiles(
    of layout: CheckpointLayout
  ) throws(PeftoolError) -> [OutputFile] {
    var files: [OutputFile] = []
    for file in layout.files {
      files.append(try createFile(file.name, byteCount: file.byteCount))
    }
    if let index = layout.index { try write(index.text, to: index.name) }
    return files
  }

  /// Writes a JSON file as the libraries of the field do, with an indent of two.
  ///
  /// - Throws: as `write`.
  package mutating func write(_ json: JSON, to name: String) throws(PeftoolError) {
    try write(Array((json.text(indent: 2) + "\n").utf8), to: name)
  }

  /// Copies what lies beside a model's tensors: configuration, tokenizer, licence and the like.
  ///
  /// `config` takes the place of its `config.json`, and is written also where the model is a single
  /// file, beside which nothing else is taken along. A configuration of an adapter is left out where
  /// the tensors are not its own: with one beside it, transformers takes a model for that adapter.
  ///
  /// - Parameter excluded: names that are left out.
  /// - Throws: `io`, and `different` where a file changes meanwhile.
  package mutating func carryOtherFiles(
    of model: Checkpoint, config: JSON?, except excluded: [String] = []
  ) throws(PeftoolError) {
    let configName = "config.json"
    if let config { try write(config, to: configName) }
    for name in model.otherFiles
    where model.isAdapter || name != Checkpoint.adapterConfigName {
      if name == configName, config != nil { continue }
      if excluded.contains(where: name.isExactly) { continue }
      if let packed = model.packed {
        let member = packed.contents.members.first { $0.name.isExactly(name) }
        if let member {
          try packed.write(member, to: createFile(name, byteCount: member.byteCount))
        }
        continue
      }
      guard let folder = model.directory else { continue }
      let input = try InputFile(opening: Folder.path(folder, name))
      let file = try createFile(name, byteCount: input.byteCount)
      try file.copy(0..<input.byteCount, of: input, to: 0)
      try input.verifyUnchanged()
    }
  }
}

extension Checkpoint {
  /// What the user should know of what `StagedOutput.carryOtherFiles` leaves behind.
  package var leftBehind: [String] {
    guard !otherWeights.isEmpty else { return [] }
    let names = otherWeights.prefix(5).map(\.printable).joined(separator: ", ")
    return ["other weights in the folder are not carried along: \(names)"]
  }
}
