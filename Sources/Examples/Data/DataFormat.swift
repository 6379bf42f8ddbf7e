package import Files

/// How a file of training data is built.
package enum DataFormat: String, CaseIterable, Sendable {
  /// A JSON object a line.
  case jsonl
  /// Comma-separated values with a header row.
  case csv
  /// Plain text, a whole file as one stream.
  case txt
  /// Numbers of tokens, in a safetensors file.
  case safetensors

  /// What a path's name says; standard input, `-`, is JSON lines.
  ///
  /// - Parameter formats: those that are taken.
  /// - Throws: `unsupported` where the name says none of them, with the flag that does.
  package init(
    ofPath path: String, among formats: [DataFormat] = allCases
  ) throws(PeftoolError) {
    if path == DataInput.standardInputPath {
      self = .jsonl
      return
    }
    let name = Folder.name(of: path)
    let all: [(String, DataFormat)] = [
      (".jsonl", .jsonl), (".ndjson", .jsonl), (".csv", .csv), (".txt", .txt),
      (".safetensors", .safetensors),
    ]
    let endings = all.filter { formats.contains($0.1) }
    guard let format = endings.first(where: { name.ends(with: $0.0) })?.1 else {
      throw PeftoolError(
        .unsupported,
        "the name does not say what the data is, expected one that ends with "
          + endings.map(\.0).joined(separator: ", ")
          + "; --data-format says it for any name", path: path)
    }
    self = format
  }
}
