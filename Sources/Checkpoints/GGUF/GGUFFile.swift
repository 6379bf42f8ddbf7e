package import Files
import JSON
package import Tensors

/// A GGUF model: one file, or several that a splitter has made of one.
///
/// Only the heads are in memory.
package struct GGUFFile: TensorSource {
  /// The path that was opened; of several files that of any.
  package let path: String
  /// The open files, in their order.
  package let files: [InputFile]
  /// Their heads.
  package let headers: [GGUFHeader]
  package let tensors: [TensorInfo]

  /// The first file's head, whose metadata is that of the whole.
  package var header: GGUFHeader { headers[0] }

  /// The metadata as text; of an array its length.
  package var metadata: [(key: String, value: String)] {
    header.metadata.map { ($0.key, $0.value.summary) }
  }

  /// Opens a file and, where it is one of several, those that lie beside it.
  ///
  /// - Throws: `io` (a missing part is named), `damaged`, `unsupported`, `different` where parts
  ///   do not fit together; each with its path.
  package init(opening path: String) throws(PeftoolError) {
    try self.init(InputFile(opening: path))
  }

  /// Reads the head of an open file, and those of the other parts.
  ///
  /// - Throws: as `init(opening:)`.
  package init(_ file: InputFile) throws(PeftoolError) {
    path = file.path
    let first = try Self.header(of: file, fileIndex: 0)
    let partCount = try Self.partCount(first, path: file.path)
    guard partCount > 1 else {
      (files, headers, tensors) = ([file], [first], first.tensors)
      return
    }
    let names = try Self.partNames(first, count: partCount, path: file.path)
    var files: [InputFile] = []
    var headers: [GGUFHeader] = []
    for (place, name) in names.enumerated() {
      let path = Folder.path(Folder.parent(of: file.path), name)
      let part: InputFile
      do throws(PeftoolError) {
        part = try InputFile(opening: path)
      } catch {
        throw PeftoolError(
          error.kind, "\(error.reason); the model has \(partCount) files", path: path)
      }
      let header = try Self.header(of: part, fileIndex: place)
      do throws(PeftoolError) {
        try Self.check(header, isPart: place, of: partCount)
      } catch {
        throw error.at(path: path)
      }
      files.append(part)
      headers.append(header)
    }
    self.files = files
    self.headers = headers
    tensors = headers.flatMap(\.tensors)
    try checkTensors()
  }

  private static func header(
    of file: InputFile, fileIndex: Int
  ) throws(PeftoolError) -> GGUFHeader {
    do throws(PeftoolError) {
      return try GGUFHeader(file, fileIndex: fileIndex)
    } catch {
      throw error.at(path: file.path)
    }
  }

  // MARK: Parts

  private static let countKey = "split.count"
  private static let numberKey = "split.no"
  private static let tensorCountKey = "split.tensors.count"

  private static func partCount(
    _ header: GGUFHeader, path: String
  ) throws(PeftoolError) -> Int {
    guard let value = header[countKey] else { return 1 }
    guard case .unsigned(let count) = value, count <= UInt16.max else {
      throw PeftoolError(
        .damaged, "\(countKey) is \(value.summary.printable), expected 0 to 65535", path: path)
    }
    return Int(count)
  }

  /// The names of all parts, which differ in their numbers only: `m-00001-of-00003.gguf`.
  private static func partNames(
    _ header: GGUFHeader, count: Int, path: String
  ) throws(PeftoolError) -> [String] {
    let name = Folder.name(of: path)
    guard let number = header[numberKey]?.int, (0..<count).contains(number) else {
      throw PeftoolError(
        .damaged,
        "\(numberKey) is \(header[numberKey]?.summary.printable ?? "missing"), expected "
          + "0 to \(count - 1)",
        path: path)
    }
    let ending = ending(number, of: count)
    guard name.hasSuffix(ending) else {
      throw PeftoolError(
        .different,
        "is part \(number + 1) of \(count) by its head, expected a name that ends in "
          + "\(ending) so that the others can be found",
        path: path)
    }
    let stem = name.dropLast(ending.count)
    return (0..<count).map { stem + Self.ending($0, of: count) }
  }

  private static func ending(_ number: Int, of count: Int) -> String {
    func digits(_ value: Int) -> String {
      let text = String(value)
      return String(repeating: "0", count: max(0, 5 - text.count)) + text
    }
    return "-\(digits(number + 1))-of-\(digits(count)).gguf"
  }

  private static func check(
    _ header: GGUFHeader, isPart number: Int, of count: Int
  ) throws(PeftoolError) {
    for (key, expected) in [(countKey, count), (numberKey, number)] {
      guard header[key]?.int == expected else {
        throw PeftoolError(
          .different,
          "\(key) is \(header[key]?.summary.printable ?? "missing"), expected \(expected)")
      }
    }
  }

  /// Checks the parts' tensors against each other.
  private func checkTensors() throws(PeftoolError) {
    if let expected = header[Self.tensorCountKey], expected.int != tensors.count {
      throw PeftoolError(
        .different,
        "\(Self.tensorCountKey) is \(expected.summary.printable), the files have "
          + "\(tensors.count) tensors",
        path: path)
    }
    var found: [ExactName: Int] = [:]
    for tensor in tensors {
      if let other = found.updateValue(tensor.fileIndex, forKey: ExactName(tensor.name)) {
        throw PeftoolError(
          .damaged, "stands in this file and in \(files[other].path.printable)",
          tensor: tensor.name, path: files[tensor.fileIndex].path)
      }
    }
  }
}
