package import Checkpoints
package import Files
import JSON
import LinearAlgebra
package import Tensors

/// The writing of an adapter: its file of tensors, and for a folder its configuration.
///
/// Peak memory: two of the adapter's largest tensors a thread.
package struct AdapterWriting: Sendable {
  private let files: AdapterFiles
  private let encoded: SafetensorsHeader.Encoded

  /// Lays an adapter out.
  ///
  /// - Throws: as `SafetensorsHeader.encode`.
  package init(_ files: AdapterFiles) throws(PeftoolError) {
    self.files = files
    encoded = try SafetensorsHeader.encode(
      files.items.map { .init(name: $0.name, dtype: $0.dtype, shape: $0.shape) },
      metadata: files.metadata)
  }

  /// What the user should know.
  package var notes: [String] { files.notes }
  /// The dtypes of the tensors that will be written.
  package var dtypes: Set<DType> { Set(files.items.map(\.dtype)) }
  /// The bytes of the tensors' file that will be written.
  package var byteCount: Int { encoded.fileByteCount }

  /// Writes, and puts the folder or the file in its place.
  ///
  /// - Throws: `io`, `damaged` where an input is cut short or has values that are not finite,
  ///   `different` where one changed meanwhile.
  package func run(
    to path: String, inputs: [any TensorSource], beside others: [InputFile] = [], isForced: Bool,
    threads: Int?,
    progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) {
    var inputFiles = others
    for input in inputs { inputFiles += try input.inputFiles }
    var output = try StagedOutput(
      files.configuration == nil ? .file : .adapterFolder, at: path, force: isForced,
      apartFrom: inputFiles)
    let file = try output.createFile(files.fileName, byteCount: byteCount)
    if let configuration = files.configuration {
      let text = configuration.json.text(indent: configuration.indent, sortedKeys: true)
      try output.write(Array(text.utf8), to: Adapter.configurationName)
    }
    if let positions = files.positions { try output.write(positions.config, to: "config.json") }
    var pass = OutputPass<Int>()
    pass.append(encoded.bytes, to: 0, at: 0)
    for place in encoded.fileOrder { pass.append(place) }
    _ = try pass.run(
      into: [file], threads: threads ?? availableProcessorCount, progress: progress, worker: {},
      perform: { (_, place) throws(PeftoolError) in
        let bytes = try files.items[place].bytes()
        // Any bytes may be read as bytes.
        try unsafe file.write(bytes.span.bytes, at: encoded.byteRanges[place].lowerBound)
        progress(bytes.count)
      })
    for input in inputs { try input.verifyUnchanged() }
    try output.commit()
  }
}
