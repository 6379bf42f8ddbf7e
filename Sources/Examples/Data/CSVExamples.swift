package import Files
import JSON

/// Examples of a CSV file whose header row names the columns `text`, or `prompt` and `completion`.
///
/// Other columns have no effect.
package struct CSVExamples {
  private var records: CSVReader
  private let path: String
  private var columns: (kind: Example.Kind, places: [Int], count: Int)?

  /// The examples of an input from here on.
  package init(_ input: DataInput) {
    records = CSVReader(input)
    path = input.path
  }

  /// The next example; nil at the end.
  ///
  /// - Throws: as `CSVReader.next()`; `damaged` where the header names no such columns, or one
  ///   twice, and where a record has more or fewer fields than the header, with the line.
  package mutating func next() throws(PeftoolError) -> Example? {
    if columns == nil, let header = try records.next() {
      do throws(PeftoolError) {
        columns = try Self.columns(header.fields)
      } catch {
        throw PeftoolError(error.kind, "line \(header.line): \(error.reason)", path: path)
      }
    }
    guard let columns, let record = try records.next() else { return nil }
    guard record.fields.count == columns.count else {
      throw PeftoolError(
        .damaged,
        "line \(record.line): \(record.fields.count) fields, expected \(columns.count) as the header "
          + "has", path: path)
    }
    let fields = columns.places.map { record.fields[$0] }
    let content: Example.Content =
      columns.kind == .text
      ? .text(fields[0]) : .completion(prompt: fields[0], completion: fields[1])
    return Example(content, line: record.line)
  }

  /// The most names that a message lists.
  private static let maximumNameCount = 8

  private static func columns(
    _ header: [String]
  ) throws(PeftoolError) -> (kind: Example.Kind, places: [Int], count: Int) {
    func places(of name: String) -> [Int] {
      header.indices.filter { header[$0].isExactly(name) }
    }
    let kinds = Example.Kind.found { !places(of: $0).isEmpty }.filter { $0 != .messages }
    let expected = "text, or prompt and completion"
    guard let kind = kinds.first else {
      let names =
        header.prefix(maximumNameCount).map { "'\($0.printable)'" }.joined(separator: ", ")
        + (header.count > maximumNameCount ? " and more" : "")
      throw PeftoolError(.damaged, "the header names \(names), expected \(expected)")
    }
    guard kinds.count == 1 else {
      throw PeftoolError(
        .damaged,
        "the header names \(kinds.map(\.summary).joined(separator: " beside ")), expected one of them"
      )
    }
    var found: [Int] = []
    for field in kind.fields {
      let places = places(of: field)
      guard places.count == 1 else {
        throw PeftoolError(
          .damaged,
          "the header names \(field) \(places.isEmpty ? "nowhere" : "\(places.count) times"), "
            + "expected it once")
      }
      found.append(places[0])
    }
    return (kind, found, header.count)
  }
}
