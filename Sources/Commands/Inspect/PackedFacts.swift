import Checkpoints
import Files
import JSON
import Reports

// What a packed file is, besides what it holds.
extension PackedFile {
  /// The facts one below the other.
  func append(to facts: inout Facts) {
    let whole = contents.members.reduce(0) { $0 + $1.byteCount }
    facts.append(
      "packed",
      "\(contents.members.count.text(of: "file")) of \(whole.byteText) in "
        + "\(file.byteCount.byteText) (\((Double(file.byteCount) / Double(whole)).percentText))")
    facts.append("differences to", base?.name.printable)
  }

  /// The same for a program; `Formats/json-output.md` describes it.
  var report: JSON {
    .object([
      .init("bytes", .number(file.byteCount)),
      .init("files", .number(contents.members.count)),
      .init("base", base.map { .string($0.name) } ?? .null),
    ])
  }

  /// The files of tensors in it, as if the packed file were their folder.
  func files(in path: String) -> [(path: String, byteCount: Int)] {
    contents.tensorMembers.map { (Folder.path(path, $0.name), $0.byteCount) }
  }
}
