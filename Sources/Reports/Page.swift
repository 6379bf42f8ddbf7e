/// A report as one page for a browser.
///
/// Nothing is fetched from elsewhere, and no script runs.
package struct Page {
  private let title: String
  private let facts: [(label: String, value: String)]
  private var body: [String] = []

  /// A page without sections; title and facts are plain text.
  package init(_ title: String, facts: [(label: String, value: String)]) {
    self.title = title
    self.facts = facts
  }

  /// Adds a section: its title in plain text, and what is in it as markup.
  package mutating func append(_ title: String, markup: String) {
    body.append("<h2>\(title.markupText)</h2>\n\(markup)")
  }

  /// Adds a section with a table of plain text.
  package mutating func append(_ title: String, columns: [String], rows: [[String]]) {
    func row(_ cells: [String], _ tag: String) -> String {
      "<tr>" + cells.map { "<\(tag)>\($0.markupText)</\(tag)>" }.joined() + "</tr>"
    }
    append(
      title,
      markup: (["<table>", row(columns, "th")] + rows.map { row($0, "td") } + ["</table>"])
        .joined(separator: "\n"))
  }

  /// The page's text.
  package var text: String {
    let lines = facts.map {
      "<dt>\($0.label.markupText)</dt><dd>\($0.value.markupText)</dd>"
    }
    return """
      <!DOCTYPE html>
      <html lang="en">
      <head>
      <meta charset="utf-8">
      <meta name="viewport" content="width=device-width">
      <title>\(title.markupText)</title>
      <style>
      body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 2em; }
      h1 { font-size: 1.3em; }
      h2 { font-size: 1.1em; margin-top: 2em; }
      dl { display: grid; grid-template-columns: max-content auto; gap: 0 1em; }
      dt { color: #666; }
      dd { margin: 0; }
      .picture { overflow-x: auto; }
      .charts { display: flex; flex-wrap: wrap; gap: 1em; }
      svg text { font: 12px system-ui, sans-serif; fill: #1a1a1a; }
      table { border-collapse: collapse; }
      th, td { text-align: right; padding: 0.1em 0.8em; border-bottom: 1px solid #ddd; }
      th:first-child, td:first-child { text-align: left; }
      </style>
      </head>
      <body>
      <h1>\(title.markupText)</h1>
      <dl>\(lines.joined())</dl>
      \(body.joined(separator: "\n"))
      </body>
      </html>

      """
  }
}
