import Files

/// The file that a report for a browser goes to.
struct ReportFile {
  let path: String
  let isForced: Bool
  /// What a user can do where it exists.
  var wayOut = "--force replaces it"

  /// Makes sure before the work that it can be written after it.
  ///
  /// - Parameter output: a folder that the work makes.
  /// - Throws: `io` where it exists already, or its folder does not.
  func check(beside output: String? = nil) throws(PeftoolError) {
    guard path != "-", output.map(Folder.trimmed) != Folder.trimmed(path) else {
      throw PeftoolError(
        .io, "is \(path == "-" ? "no file" : "the output itself"): --report names a page",
        path: path)
    }
    if !isForced, Folder.exists(path) {
      throw PeftoolError(.io, "exists already; \(wayOut)", path: path)
    }
    let folder = Folder.parent(of: path)
    guard Folder.isFolder(folder) || folder == output.map(Folder.trimmed) else {
      throw PeftoolError(
        .io, "is no folder, into which --report is to write \(path.printable)", path: folder)
    }
  }

  /// Writes the page; it is whole or absent.
  ///
  /// - Throws: `io`.
  func write(_ page: String) throws(PeftoolError) {
    var staged = try StagedOutput(.file, at: path, force: isForced)
    let text = Array(page.utf8)
    let file = try staged.createFile(byteCount: text.count)
    // Any bytes may be read as bytes.
    try unsafe file.write(text.span.bytes, at: 0)
    try staged.commit()
  }
}
