package import Files

/// An adapter made one of another format.
///
/// What need not change is copied byte for byte. Peak memory: as `AdapterWriting`.
package struct AdapterConversion: Sendable {
  /// The format that was found.
  package let from: AdapterFormat
  /// The format that is written.
  package let to: AdapterFormat
  /// What was read.
  package let adapter: LowRankAdapter
  private let writing: AdapterWriting

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
      writing = try AdapterWriting(to.files(for: adapter, hints))
    } catch {
      throw error.at(path: path)
    }
  }

  /// What the user should know.
  package var notes: [String] { adapter.notes + writing.notes }
  /// The bytes of the tensors' file that will be written.
  package var byteCount: Int { writing.byteCount }

  /// Converts, and puts the folder or the file in its place.
  ///
  /// - Throws: as `AdapterWriting.run`.
  package func run(
    to path: String, isForced: Bool, threads: Int?, progress: @Sendable (Int) -> Void
  ) throws(PeftoolError) {
    try writing.run(
      to: path, inputs: adapter.sources, isForced: isForced, threads: threads, progress: progress)
  }
}
