import Checkpoints
package import Files
import JSON
import LinearAlgebra
import Tensors

/// An adapter made one of another format.
///
/// What need not change is copied byte for byte. Peak memory: two of the adapter's largest tensors
/// a thread.
package struct AdapterConversion: Sendable {
  /// The format that was found.
  package let from: AdapterFormat
  /// The format that is written.
  package let to: AdapterFormat
  /// What was read.
  package let adapter: LowRankAdapter
  private let files: AdapterFiles
  private let encoded: SafetensorsHeader.Encoded

  /// Plans the conversion; of the tensors only numbers such as alpha are read.
  ///
  /// - Throws: as `AdapterFormat.read` and `AdapterFormat.files`, and `unsupported` where the
  ///   adapter is of the wanted format already.
  package init(
    _ path: String, to: AdapterFormat, _ hints: AdapterFormat.Hints
  ) throws(PeftoolError) {
    (from, adapter) = try AdapterFormat.read(path, hints)
    self.to = to
    guard from != to else {
      throw PeftoolError(
        .unsupported, "is an adapter of \(to.name) already, expected one of another format",
        path: path)
    }
    guard hints.prefix == nil || from == .kohya || to == .kohya else {
      throw PeftoolError(
        .unsupported, "has no names of kohya's, and \(to.name) neither: --prefix is for those",
        path: path)
    }
    do throws(PeftoolError) {
      files = try to.files(for: adapter, hints)
      encoded = try SafetensorsHeader.encode(
        files.items.map { .init(name: $0.name, dtype: $0.dtype, shape: $0.shape) },
        metadata: files.metadata)
    } catch {
      throw error.at(path: path)
    }
  }

  /// What the user should know.
  package var notes: [String] { adapter.notes + files.notes }
  /// The bytes of the tensors' file that will be written.
  package var byteCount: Int { encoded.fileByteCount }

  /// Converts, and puts the folder or the file in its place.
  ///
  /// - Throws: `io`, `damaged` where the input is cut short or has values that are not finite,
  ///   `different` where it changed meanwhile.
  package func run(
    to path: String, isForced: Bool, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) {
    let inputs = adapter.files
    var output = try StagedOutput(
      files.configuration == nil ? .file : .directory, at: path, force: isForced,
      apartFrom: inputs)
    let file = try output.createFile(files.fileName, byteCount: byteCount)
    if let configuration = files.configuration {
      let text = configuration.json.text(indent: configuration.indent, sortedKeys: true)
      try output.write(Array(text.utf8), to: Adapter.configurationName)
    }
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
