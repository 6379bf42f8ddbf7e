package import Files
import Glibc
package import JSON

/// `log.jsonl`: a JSON object for each step and each evaluation, written as they come.
package final class TrainingLog {
  /// The file's name in the run's folder.
  package static let name = "log.jsonl"

  private let path: String
  private let descriptor: Int32

  /// Opens the log of a run's folder, without what it has of later steps than one.
  ///
  /// - Throws: `io`; `damaged` where an earlier line is no JSON object with a step.
  package init(in folder: String, upTo step: Int) throws(PeftoolError) {
    path = Folder.path(folder, Self.name)
    let kept = Folder.exists(path) ? try Self.entries(path, upTo: step) : []
    var output = try StagedOutput(.file, at: path, force: true)
    let text = Array(kept.map { $0.text() + "\n" }.joined().utf8)
    let file = try output.createFile(byteCount: text.count)
    // Any bytes may be read as bytes.
    try unsafe file.write(text.span.bytes, at: 0)
    try output.commit()
    let path = path
    descriptor = try systemCall("cannot open", path: path) {
      unsafe open(path, O_WRONLY | O_APPEND | O_CLOEXEC)
    }
  }

  deinit { close(descriptor) }

  /// The lines of a log up to a step.
  ///
  /// - Throws: as `init`.
  package static func entries(_ path: String, upTo step: Int) throws(PeftoolError) -> [JSON] {
    let file = try InputFile(opening: path)
    var entries: [JSON] = []
    let bytes = try file.bytes(0..<file.byteCount)
    let newline = UInt8(ascii: "\n")
    let lines = bytes.split(separator: newline)
    for (number, line) in lines.enumerated() {
      do throws(PeftoolError) {
        let entry = try JSON(parsing: Array(line))
        if try entry.int(at: "step") <= step { entries.append(entry) }
      } catch {
        // A line that a kill has cut short is of a later step than any checkpoint.
        if number == lines.count - 1, bytes.last != newline { break }
        throw PeftoolError(error.kind, "line \(number + 1): \(error.reason)", path: path)
      }
    }
    return entries
  }

  /// Adds a line.
  ///
  /// - Throws: `io`.
  package func append(_ entry: JSON) throws(PeftoolError) {
    let bytes = Array((entry.text() + "\n").utf8)
    var done = 0
    while done < bytes.count {
      let (descriptor, start) = (descriptor, done)
      done += try systemCall("cannot write", path: path) {
        // Within the bytes: start < count.
        unsafe bytes.withUnsafeBytes {
          unsafe Glibc.write(
            descriptor, $0.baseAddress.map { unsafe $0 + start }, $0.count - start)
        }
      }
    }
  }
}
