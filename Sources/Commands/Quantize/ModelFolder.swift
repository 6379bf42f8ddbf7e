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
    for input in source.source.files where Folder.contains(path, input.path) {
      throw PeftoolError(
        .unsupported, "is or holds the input \(input.path.printable): name another output",
        path: path)
    }
    var output = try StagedOutput(.directory, at: path, force: force)
    var files: [OutputFile] = []
    for file in layout.files {
      files.append(try output.createFile(file.name, byteCount: file.byteCount))
    }
    if let index = layout.index { try output.write(index.text, to: index.name) }
    for name in source.otherFiles {
      guard let folder = source.directory else { break }
      if name == "config.json", let config {
        try output.write(Array((config.text(indent: 2) + "\n").utf8), to: name)
        continue
      }
      let input = try InputFile(opening: Folder.path(folder, name))
      let file = try output.createFile(name, byteCount: input.byteCount)
      try file.copy(0..<input.byteCount, of: input, to: 0)
      try input.verifyUnchanged()
    }
    let result = try body(files)
    try source.source.verifyUnchanged()
    try output.commit()
    return result
  }
}
