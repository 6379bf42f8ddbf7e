/// Rows under column titles, aligned for a terminal of a given width.
package struct Table: Sendable {
  /// How a column's cells stand.
  package enum Alignment: Sendable { case left, right }

  /// A column's title and manner.
  package struct Column: Sendable {
    /// What stands above the column.
    package let title: String
    /// Where its cells stand.
    package let alignment: Alignment
    /// Whether cells lose their middle when the table is too wide, as far as they stay different; so
    /// for names.
    package let isShortened: Bool

    /// A column; at most one of a table is shortened.
    package init(_ title: String, _ alignment: Alignment = .left, isShortened: Bool = false) {
      self.title = title
      self.alignment = alignment
      self.isShortened = isShortened
    }
  }

  private let columns: [Column]
  /// The cells, row by row.
  package private(set) var rows: [[String]] = []

  /// Below this width a name tells nothing any more, and the table grows past its width instead.
  private static let minimumShortenedWidth = 16

  /// A table without rows.
  package init(_ columns: [Column]) { self.columns = columns }

  /// What stands above the columns.
  package var titles: [String] { columns.map(\.title) }

  /// Whether there is nothing to show.
  package var isEmpty: Bool { rows.isEmpty }

  /// Adds a row of as many cells as there are columns.
  package mutating func append(_ cells: [String]) {
    precondition(cells.count == columns.count)
    rows.append(cells)
  }

  /// The table's lines, titles first; nil for the width leaves every cell whole.
  package func text(width: Int?) -> String {
    var widths = columns.map(\.title.count)
    for row in rows {
      for (column, cell) in row.enumerated() { widths[column] = max(widths[column], cell.count) }
    }
    if let width, let name = columns.firstIndex(where: \.isShortened) {
      let others = widths.reduce(0, +) - widths[name] + 2 * (columns.count - 1)
      let least = max(width - others, Self.minimumShortenedWidth)
      if least < widths[name], staysDistinct(rows.map { $0[name] }, in: least) {
        widths[name] = least
      }
    }
    var text = ""
    for row in [columns.map(\.title)] + rows {
      var line = ""
      for (column, cell) in row.enumerated() {
        let cell = cell.shortenedInTheMiddle(to: widths[column])
        let padding = String(repeating: " ", count: widths[column] - cell.count)
        line += column > 0 ? "  " : ""
        line += columns[column].alignment == .left ? cell + padding : padding + cell
      }
      text += line.trimmingTrailingSpaces + "\n"
    }
    return text
  }
}

extension Table {
  /// Whether names that differ do so when they are shortened, too: 30 layers that look the same tell
  /// nothing.
  private func staysDistinct(_ names: [String], in width: Int) -> Bool {
    Set(names.map { $0.shortenedInTheMiddle(to: width) }).count == Set(names).count
  }
}

extension String {
  /// The string with `…` for its middle where it has more than `width` characters.
  ///
  /// The end keeps more than the beginning: in names of tensors it tells more.
  package func shortenedInTheMiddle(to width: Int) -> String {
    guard count > width else { return self }
    guard width > 1 else { return "…" }
    let head = (width - 1) * 2 / 5
    return "\(prefix(head))…\(suffix(width - 1 - head))"
  }

  /// The string without spaces at its end.
  var trimmingTrailingSpaces: String {
    var text = self
    while text.last == " " { text.removeLast() }
    return text
  }
}
